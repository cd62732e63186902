"""`python -m pipeline scorecard`."""

import argparse
import json
from pathlib import Path

TEXT = """\
All tasks and seeds of `finetune --out DIR` in one table: mean and 95% interval over the seeds, what chance gives, the paper's
figures and the difference, and what the pretrained run had seen and cost. Writes DIR/scorecard.json and DIR/scorecard.html.
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Which folder."""
    verb.add_argument("--run", dest="out", required=True, type=Path, metavar="DIR", help="the --out of finetune")
    verb.add_argument("--json", action="store_true", help="the scorecard on standard output, as JSON")


def run(args: argparse.Namespace) -> None:
    """Write the files and print the table."""
    from pipeline.finetune.scorecard import table
    from pipeline.report.scorecard_page import write_scorecard

    card = write_scorecard(args.out)
    print(json.dumps(card, indent=1) if args.json else f"{table(card)}\n\npage  {args.out / 'scorecard.html'}")
