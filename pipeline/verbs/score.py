"""`python -m pipeline score`."""

import argparse
import math
from pathlib import Path

from pipeline.tasks.examples import TASKS
from pipeline.verbs.figures import show

TEXT = """\
The official figures of anybody's predictions, which need no model: for SQuAD a JSON object {id: answer}, for MNLI {pairID:
label} or a list of labels. DATA is the official file (also .gz). --na-prob is SQuAD 2.0's third file (BERT calls it
null_odds.json): with it the best thresholds are looked for.

  python -m pipeline score --task squad2 predictions.json dev-v2.0.json --na-prob null_odds.json
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """The task and the two files."""
    verb.add_argument("--task", required=True, choices=TASKS)
    verb.add_argument("predictions", type=Path, metavar="PREDICTIONS", help="what was said, JSON")
    verb.add_argument("data", type=Path, metavar="DATA", help="the official data with the gold answers")
    verb.add_argument("--na-prob", type=Path, metavar="FILE", help="squad2: how sure it is that there is no answer, by id")
    verb.add_argument("--na-prob-thresh", type=float, metavar="T", help='squad2: above it the answer is "" (1.0)')
    verb.add_argument("--json", action="store_true", help="figures alone on standard output, as JSON")


def run(args: argparse.Namespace) -> None:
    """Print the figures."""
    from pipeline.tasks.score import score_files

    if args.na_prob is not None and args.task != "squad2":
        raise ValueError(f"--na-prob goes with --task squad2: {args.task} has no unanswerable questions")
    if args.na_prob_thresh is not None and args.na_prob is None:
        raise ValueError(f"--na-prob-thresh {args.na_prob_thresh} is a threshold of what --na-prob FILE holds: give that, too")
    if args.na_prob_thresh is not None and math.isnan(args.na_prob_thresh):
        raise ValueError("--na-prob-thresh nan: nothing is above that, nor below it; expected a number")
    threshold = 1.0 if args.na_prob_thresh is None else args.na_prob_thresh
    show(score_files(args.task, args.predictions, args.data, args.na_prob, threshold), args.json)
