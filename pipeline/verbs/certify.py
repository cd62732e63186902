"""`python -m pipeline certify`."""

import argparse
import json
import os
from pathlib import Path

from preprocessing.base.files import write_whole

TEXT = """\
Hold this machine's DeepSpeed against the recipe on paper. Small models are trained for 20 steps under each file of
ds_configs/ and compared with a float64 reference in one process: parameters, norms, thresholds, clip decisions.

  python -m pipeline certify                                      on this machine, with 1 and 2 ranks
  python -m pipeline certify --matrix full                        1, 2 and 4 ranks, every combination
  srun --ntasks 16 python -m pipeline certify --matrix full       the ranks of a launcher, across nodes

Exit code 0 if everything passes, 1 if anything fails.
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Which matrix of cases."""
    verb.add_argument(
        "--matrix", choices=("quick", "full"), default="quick", help="default: quick, about a minute on two cores"
    )
    verb.add_argument(
        "--ds-config",
        dest="ds_configs",
        action="append",
        metavar="NAME",
        help="a file of ds_configs/ or the path of your own .json file; repeatable (default: all of ds_configs/)",
    )
    verb.add_argument("--json-file", type=Path, metavar="FILE", help="also write the figures of every run there")


def run(args: argparse.Namespace) -> int:
    """Print the table; 1 if anything fails."""
    from dataclasses import asdict

    from pipeline.distributed.launch import is_launched, world_from
    from pipeline.verify import certify

    if args.json_file is not None and not args.json_file.parent.is_dir():
        raise ValueError(f"--json-file {args.json_file}: no directory {args.json_file.parent}; make it first")
    ds_configs = args.ds_configs or certify.shipped()
    world = world_from(os.environ)
    if is_launched(os.environ):
        results = certify.certify_here(args.matrix, ds_configs, world)
    else:
        results = certify.certify_all(args.matrix, ds_configs)
    if world.is_main:
        print(certify.table(results))
        if args.json_file is not None:
            write_whole(args.json_file, json.dumps([asdict(result) for result in results], indent=1).encode())
    return int(any(result.problem for result in results))
