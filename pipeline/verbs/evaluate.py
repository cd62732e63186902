"""`python -m pipeline evaluate`."""

import argparse
from pathlib import Path

from pipeline.verbs.figures import show

TEXT = """\
Loss on the held-out text of the run's corpus, with its newest checkpoint: over all predictions, and over those shown as
[MASK] alone (the others let the model copy). Masks are fixed, so that all runs on a corpus are compared on one task. --data
names the corpus if it has moved, or another one that was built with the same tokenizer: then it is that one's held-out text,
and the run's own corpus stays where it is, for the token frequencies that are a row-normalised decoder's bias.
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Which run, and how much of its held-out text."""
    verb.add_argument("--run", dest="run_dir", required=True, type=Path, metavar="DIR", help="a run with a checkpoint")
    verb.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="where the run's corpus is now, or another corpus with its tokenizer (default: the run's, where it was)",
    )
    verb.add_argument("--sequences", type=int, metavar="N", help="the first N held-out sequences (default: all)")
    verb.add_argument("--json", action="store_true", help="figures alone on standard output, as JSON")


def run(args: argparse.Namespace) -> None:
    """Print the held-out figures."""
    from pipeline.train.evaluate import evaluate_run

    if args.sequences is not None and args.sequences < 1:
        raise ValueError(f"--sequences {args.sequences}: expected at least 1")
    show(evaluate_run(args.run_dir, args.data, args.sequences), args.json)
