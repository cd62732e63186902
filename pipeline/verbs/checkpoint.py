"""`python -m pipeline checkpoint`."""

import argparse
import sys
from pathlib import Path

from preprocessing.base.command_line import Parser

TEXT = """\
Look after the checkpoints of a run. DIR is the --run of a `pipeline pretrain`; docs/checkpoints.md explains what is in it.

  list      step, size, ranks, ZeRO stage, precision, age and state of each; manifests and sizes are checked
  verify    the same with every byte read and hashed; exit code 1 if one is not valid
  convert   the weights in one safetensors file, for use elsewhere. A resume needs no conversion: it reads any checkpoint with
            any number of ranks and any ZeRO stage
  prune     delete old ones
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """The actions and their options."""
    actions = verb.add_subparsers(title="actions", required=True, metavar="ACTION", parser_class=Parser)
    for name, summary, run in (
        ("list", "step, size, ranks, ZeRO stage, age, valid or why not", _list),
        ("verify", "read and hash every byte", _verify),
        ("convert", "the weights in one safetensors file", _convert),
        ("prune", "delete old checkpoints", _prune),
    ):
        action = actions.add_parser(name, help=summary, description=summary)
        action.set_defaults(run=run)
        action.add_argument("run_dir", type=Path, metavar="DIR", help="a run directory")
        if name == "convert":
            action.add_argument("--out", required=True, type=Path, metavar="FILE", help="where to: a new .safetensors file")
            action.add_argument("--step", type=int, metavar="N", help="of which checkpoint (default: the newest whole one)")
        if name == "prune":
            action.add_argument("--keep-last", required=True, type=int, metavar="K", help="keep the newest K whole ones")
            action.add_argument(
                "--keep-every", type=int, default=0, metavar="N", help="and of the older ones those at multiples of N steps"
            )
            action.add_argument("--dry-run", action="store_true", help="say what would be deleted; delete nothing")


def _list(args: argparse.Namespace) -> None:
    from pipeline.checkpoint import manage

    print(manage.table(manage.rows(args.run_dir), args.run_dir, "whole (`verify` reads every byte)"))


def _verify(args: argparse.Namespace) -> int:
    from pipeline.checkpoint import manage

    rows = manage.rows(args.run_dir, read_all=True)
    print(manage.table(rows, args.run_dir, "valid"))
    return int(any(row.problem for row in rows))


def _convert(args: argparse.Namespace) -> None:
    from pipeline.checkpoint import manage

    found = manage.convert(args.run_dir, args.step, args.out, lambda text: print(text, file=sys.stderr))
    print(f"{args.out}: {len(found.manifest['parameters'])} tensors of step {found.step}")


def _prune(args: argparse.Namespace) -> None:
    from pipeline.checkpoint import manage

    doomed = manage.prune(args.run_dir, args.keep_last, args.keep_every, args.dry_run)
    for directory in doomed:
        print(f"{'would delete' if args.dry_run else 'deleted'} {directory}")
    if not doomed:
        print("nothing to delete")
