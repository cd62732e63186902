"""`python -m slurm VERB`: submit, status."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.tasks.examples import TASKS
from preprocessing.base import command_line as cli
from slurm import records, request, status
from slurm.render import scripts
from slurm.request import THEN, Request
from slurm.sbatch_options import notes
from slurm.site import SITE_FILE, options_of, read_site
from slurm.submit import ignored_variables, preview, submit

SUBMIT = """\
Queue a run on a SLURM cluster: corpus -> pretraining -> what comes after it, as a chain of jobs.

  python -m slurm submit --recipe base --data corpora/wb --run runs/base --nodes 4 --gpus-per-node 8
  python -m slurm submit --recipe base --source wikipedia --source books --build '--vocab-size 30522' --tasks 64 \\
      --data corpora/wb --run runs/base --then evaluate
  python -m slurm submit --recipe small --data corpora/wb --run runs/lr --sweep optim.lr=0.1,0.2,0.4 --at-most 2

Everything is checked first: recipe, batch, corpus, run directory, and each job by `sbatch --test-only`; then all of it is
queued, or nothing. The training job puts itself back into the queue until its last step is done (docs/slurm.md). Say the
same again after a failure: what is done is not done again. Scripts and logs lie in RUN.slurm/.

The site's settings (account, partition, modules, container) are in slurm/site.env: see slurm/site.env.example.
"""
STATUS = "Where each stage of a run is: from the queue, from what SLURM knows of ended jobs, and from the run directory.\n"


def make_parser() -> cli.Parser:
    """The command line of `python -m slurm`."""
    parser = cli.Parser(prog="python -m slurm", description="Jobs on a SLURM cluster.")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB", parser_class=cli.Parser)
    for name, summary, text, run in (
        ("submit", "queue a run, or a chain of jobs that ends in one", SUBMIT, run_submit),
        ("status", "where each stage of a run is", STATUS, run_status),
    ):
        verb = verbs.add_parser(name, help=summary, description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
        verb.is_for(work_counts=name == "submit")  # what is queued is queued
        verb.set_defaults(run=run)
        verb.add_argument("--run", dest="run_dir", required=True, type=Path, metavar="DIR", help="the run's directory")
        if name == "submit":
            _add_run(verb)
            _add_corpus(verb)
            _add_site(verb)
    return parser


def _add_run(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--recipe", required=True, metavar="NAME", help="of `pipeline pretrain`, or the path of a .toml file")
    verb.add_argument("--data", required=True, type=Path, metavar="DIR", help="the corpus: there, or to be built from --source")
    verb.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="change one value of the recipe"
    )
    verb.add_argument(
        "--from",
        dest="start_from",
        type=Path,
        metavar="RUN",
        help="begin with the weights of this run, or of a checkpoint of it",
    )
    verb.add_argument("--fresh", action="store_true", help="put the run that is there aside, once, and begin anew")
    verb.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="KEY=V1,V2",
        help="train a run for each value, as an array, in directories below --run; repeated: each combination",
    )
    verb.add_argument(
        "--then", action="append", default=[], choices=THEN, help="a job after the training (memory: beside it); repeatable"
    )
    verb.add_argument("--task", dest="tasks_after", action="append", choices=TASKS, help="finetune: which (default: all)")
    verb.add_argument("--task-data", type=Path, metavar="DIR", help="finetune: a folder with their files (default: the hub)")
    verb.add_argument("--seeds", type=int, default=1, metavar="N", help="finetune: seeds of each task (default: 1)")
    verb.add_argument(
        "--finetune-set", action="append", default=[], metavar="KEY=VALUE", help="finetune: change one value of its recipes"
    )
    verb.add_argument("--rank-logs", action="store_true", help="what ranks other than 0 say goes to RUN.slurm/rank-N.log")


def _add_corpus(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--source",
        dest="sources",
        action="append",
        default=[],
        metavar="SOURCE",
        help="build the corpus first, from this (see `python -m preprocessing build --help`); repeatable",
    )
    verb.add_argument("--build", default="", metavar="OPTIONS", help="more options of the build: '--vocab-size 8192'")
    verb.add_argument("--tasks", type=int, default=16, metavar="N", help="elements of the shards' array (default: 16)")
    verb.add_argument("--at-most", type=int, default=0, metavar="N", help="elements of an array at a time (default: no limit)")


def _add_site(verb: argparse.ArgumentParser) -> None:
    for option, key in (("--nodes", "NODES"), ("--gpus-per-node", "GPUS_PER_NODE"), ("--time", "TIME")):
        verb.add_argument(option, dest=key, metavar=key.split("_")[0][0], help=f"goes over {key} of the site")
    verb.add_argument(
        "--site", action="append", default=[], metavar="KEY=VALUE", help="goes over any other line of slurm/site.env"
    )
    verb.add_argument("--site-file", type=Path, metavar="FILE", help=f"another one than {SITE_FILE.name} in slurm/")
    verb.add_argument("--print", dest="only_print", action="store_true", help="show the jobs; write and queue nothing")


def run_submit(args: argparse.Namespace) -> None:
    """The verb `submit`."""
    named = [f"{key}={getattr(args, key)}" for key in ("NODES", "GPUS_PER_NODE", "TIME") if getattr(args, key) is not None]
    asked = request.with_absolute_paths(
        Request(
            recipe=args.recipe,
            data=args.data,
            run=args.run_dir,
            site=read_site(args.site_file, [*args.site, *named]),
            overrides=tuple(args.overrides),
            fresh=args.fresh,
            start_from=args.start_from,
            sources=tuple(args.sources),
            build=request.words(args.build),
            tasks=args.tasks,
            at_most=args.at_most,
            then=tuple(stage for stage in THEN if stage in args.then),
            sweep=tuple(args.sweep),
            rank_logs=args.rank_logs,
            tasks_after=tuple(args.tasks_after or TASKS),
            task_data=args.task_data,
            seeds=args.seeds,
            finetune_overrides=tuple(args.finetune_set),
        )
    )
    figures = request.check(asked)
    jobs = scripts(asked, request.needs(asked, figures), sys.executable)
    if args.only_print:
        print(preview(asked, jobs))
    else:
        _tell(submit(asked, jobs))
    if ignored := ignored_variables():
        print(f"not used     {', '.join(ignored)} of your environment: say it in slurm/site.env")
    for note in notes(options_of(asked.site), vars(asked.site)):
        print(f"options      {note}")
    if asked.sources and asked.data.exists():
        print(f"corpus       {asked.data} is built: nothing of it is queued")
    print("\n".join(request.time_lines(asked, figures)))
    if not args.only_print:
        run = shlex.quote(str(asked.run))
        print(f"logs         {asked.folder}\nwatch        python -m slurm status --run {run}")
        known = records.read_jobs(asked.folder)
        print(f"stop         scancel {' '.join(known)}")


def _tell(jobs: Sequence[dict[str, str]]) -> None:
    for job in jobs:
        after = f"   after {job['after']}" if job["after"] else ""
        print(f"job {job['job']:<8} {job['stage']}{after}")


def run_status(args: argparse.Namespace) -> None:
    """The verb `status`."""
    print(status.table(args.run_dir.absolute()))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code (see preprocessing.base.command_line.run)."""
    return cli.run(make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
