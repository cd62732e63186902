"""`python -m pipeline experiment`."""

import argparse
from pathlib import Path

from pipeline.experiments.equilibrium import experiment as equilibrium
from pipeline.experiments.heavy_tails import experiment as heavy_tails
from pipeline.experiments.initialisers import experiment as initialisers
from pipeline.experiments.parity import experiment as parity
from pipeline.experiments.robustness import experiment as robustness
from pipeline.experiments.toys import experiment as toys
from preprocessing.base.command_line import Parser

TEXT = """\
Check a claim of the papers. An experiment writes a table (table.md), a picture (picture.png) and every figure, setting, seed
and version (result.json) into --out, and prints the table and what was found. docs/experiments.md has them all.
"""

# Each has SUMMARY; COST and QUICK_COST, of one core; TEXT, its description; add_arguments(parser); run(arguments) -> Found.
EXPERIMENTS = {
    "toys": toys,
    "equilibrium": equilibrium,
    "robustness": robustness,
    "heavy-tails": heavy_tails,
    "initialisers": initialisers,
    "parity": parity,
}


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """The experiments and their options."""
    names = verb.add_subparsers(title="experiments", required=True, metavar="NAME", parser_class=Parser)
    names.add_parser("list", help="what there is, and what it costs").set_defaults(run=_list)
    for name, module in EXPERIMENTS.items():
        one = names.add_parser(
            name, help=module.SUMMARY, description=module.TEXT, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        one.set_defaults(run=_run, experiment=name)
        one.add_argument("--quick", action="store_true", help=f"small enough for a look: {module.QUICK_COST}")
        one.add_argument("--out", type=Path, metavar="DIR", help=f"default: runs/experiments/{name}, with --quick {name}-quick")
        one.add_argument("--png", type=Path, metavar="FILE", help="also draw the picture there")
        module.add_arguments(one)


def _list(args: argparse.Namespace) -> None:
    rows = [("", "quick", "full", "what"), *((n, m.QUICK_COST, m.COST, m.SUMMARY) for n, m in EXPERIMENTS.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for *cells, what in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), what]))


def _run(args: argparse.Namespace) -> None:
    from pipeline.experiments import found

    name = args.experiment
    if args.out is None:
        args.out = Path("runs") / "experiments" / (f"{name}-quick" if args.quick else name)
    result = EXPERIMENTS[name].run(args)
    found.write(result, args.out, {"experiment": name, "quick": args.quick}, args.png)
    print(f"{found.markdown(result)}\n\n{result.finding}\n")
    for file in (found.TABLE, found.PICTURE, found.RESULT):
        print(args.out / file)
