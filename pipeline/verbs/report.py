"""`python -m pipeline report`."""

import argparse
from pathlib import Path

TEXT = """\
Write RUN/report.html, one self-contained file: curves of losses, norms and clipping, throughput, the configuration and the
versions. Works on a run in progress, too, and with --out on one that cannot be written to. --compare puts other runs of the
same corpus beside it.
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Which run, and which beside it."""
    verb.add_argument("--run", dest="run_dir", required=True, type=Path, metavar="DIR", help="a run directory")
    verb.add_argument("--compare", nargs="+", default=[], type=Path, metavar="DIR", help="runs to overlay")
    verb.add_argument("--out", type=Path, metavar="FILE", help="the page's place (default: RUN/report.html)")
    verb.add_argument("--png", type=Path, metavar="FILE", help="also draw the loss and norm curves alone, as a picture")


def run(args: argparse.Namespace) -> None:
    """Write the page, and the picture if asked for."""
    from pipeline.report.panels import write_curve_png
    from pipeline.report.run_page import write_report

    print(write_report(args.run_dir, args.compare, args.out))
    if args.png is not None:
        write_curve_png(args.run_dir, args.png, args.compare)
        print(args.png)
