"""`python -m pipeline pretrain`."""

import argparse
import math
import os
import shlex
import sys
from pathlib import Path

from pipeline.distributed.launch import is_launched, is_shell_of_allocation, world_from
from pipeline.distributed.stop_signals import outcome_in
from pipeline.verbs.arguments import add_recipe_arguments
from pipeline.verbs.figures import show
from preprocessing.base.command_line import one_line

TEXT = """\
Train a recipe on a corpus. Runs as one process, or as one rank of several under torchrun, deepspeed or srun:

  python -m pipeline pretrain --recipe tiny --data demo/corpus --run runs/tiny
  torchrun --standalone --nproc-per-node 2 -m pipeline pretrain --recipe tiny --data demo/corpus --run-dir runs/tiny

Run the same command again and it goes on from the newest whole checkpoint in --run, with any number of ranks and any ZeRO
stage; a --run of another configuration or corpus is refused. --fresh begins anew and renames the run that is there to RUN.1;
it holds for the first start of a job, not when the job is requeued or restarted. RUN then holds report.html, summary.json,
guesses.json, metrics.jsonl, tensorboard/ and checkpoints/.

--from begins a new run with the weights of another one: BERT's second phase at 512 tokens, or more steps after a rate that has
fallen to 0. A run whose rate is constant, or wsd before its decay, is made longer by a larger train.steps: docs/checkpoints.md.

SIGTERM, SIGINT, SIGUSR1 or SIGUSR2, to any rank: all ranks end the same step, save, and exit with 75 (not finished: run the
same command again). If a rank dies or hangs the others end, within train.timeout_s, and say which.
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Recipe, corpus, run directory, and how to begin."""
    add_recipe_arguments(verb)
    verb.add_argument("--data", required=True, type=Path, metavar="DIR", help="a corpus of `preprocessing build`")
    verb.add_argument(
        "--run",
        "--run-dir",
        dest="run_dir",
        required=True,
        type=Path,
        metavar="DIR",
        help="the run's directory (torchrun takes --run for an abbreviation of its own --run-path: write --run-dir there)",
    )
    verb.add_argument(
        "--from",
        dest="start_from",
        type=Path,
        metavar="RUN",
        help="begin with the weights of this run's newest checkpoint, of a checkpoint RUN/checkpoints/step-N, or of an export",
    )
    verb.add_argument("--fresh", action="store_true", help="begin anew; the run that is there is renamed, never deleted")
    verb.add_argument("--dry-run", action="store_true", help="check everything and print the arithmetic; train nothing")
    verb.add_argument("--world-size", type=int, metavar="N", help="with --dry-run: plan for N ranks (default: those running)")
    verb.add_argument(
        "--gpu-gib", type=float, metavar="G", help="with --dry-run: does it fit G GiB a rank? (default: this machine's)"
    )
    verb.add_argument("--json", action="store_true", help="final figures alone on standard output, as JSON")
    verb.add_argument(
        "--outcome", type=Path, metavar="FILE", help="write there how it ended (finished, stopped, refused), for a batch system"
    )


def run(args: argparse.Namespace) -> int:
    """Train, or plan with --dry-run; returns the exit code."""
    from pipeline.config.load import load_recipe

    config = load_recipe(args.recipe, args.overrides)
    if config.task.name != "pretraining":
        raise ValueError(f"--recipe {args.recipe} is of {config.task.name}: `python -m pipeline finetune` takes it")
    world = world_from(os.environ)
    if args.gpu_gib is not None and not (args.dry_run and 0 < args.gpu_gib < math.inf):
        raise ValueError(f"--gpu-gib {args.gpu_gib:g} goes with --dry-run and is above zero; a real run looks at its GPU")
    if args.world_size is not None and not args.dry_run:
        raise ValueError("--world-size goes with --dry-run; a real run has as many ranks as the launcher starts")
    if args.start_from is not None:
        from pipeline.run.started_from import check_is_another

        check_is_another(args.start_from, args.run_dir)
    if args.dry_run:
        from pipeline.memory.fits import device_memory
        from pipeline.train.dry_run import dry_run

        world_size = world.size if args.world_size is None else args.world_size
        run_dir = None if args.fresh else args.run_dir
        device = device_memory({}) if args.gpu_gib is None else (int(args.gpu_gib * 2**30), "such a GPU")
        figures = dry_run(config, args.recipe, args.data, run_dir, world_size, device=device, start_from=args.start_from)
        if world.is_main:
            show(figures, args.json)
        return 0
    from pipeline.distributed.stop_signals import EXIT_CODE, is_restart
    from pipeline.train.start import Job, pretrain

    if is_shell_of_allocation(os.environ) and not is_launched(os.environ):
        tasks = os.environ.get("SLURM_NTASKS", "1")
        print(
            f"one process: this is a shell of the allocation; put srun before the command for its {tasks} tasks",
            file=sys.stderr,
        )
    figures_stream = sys.stdout
    if args.json:
        sys.stdout = sys.stderr  # progress there; standard output is for the figures alone
    fresh = args.fresh and not is_restart(os.environ)
    with outcome_in(args.outcome if world.is_main else None) as outcome:
        finished = pretrain(Job(config, args.recipe, args.data, args.run_dir, fresh, args.start_from), world)
        outcome["outcome"] = "finished" if finished else "stopped"
    sys.stdout = figures_stream
    if not finished:
        return EXIT_CODE
    if world.is_main:
        from pipeline.report.run_page import write_report
        from preprocessing.base.json_file import read_object

        _write_guesses(args.run_dir)
        report = write_report(args.run_dir)
        show(read_object(args.run_dir / "summary.json"), args.json)
        if not args.json:
            _say_what_next(args.run_dir, report)
    return 0


def _write_guesses(run_dir: Path) -> None:
    """The run is finished, and its figures stand: without its sentences it is one line poorer."""
    from pipeline.train.heldout_guesses import write_guesses

    try:
        write_guesses(run_dir)
    except (ValueError, OSError) as error:
        print(f"the report has no sentences: {one_line(error)}", file=sys.stderr)


def _say_what_next(run_dir: Path, report: Path) -> None:
    newest = max((run_dir / "checkpoints").glob("step-*"))
    board = run_dir / "tensorboard"
    print(
        f"\nreport       {report}\n"
        f"tensorboard  {board}   (tensorboard --logdir {shlex.quote(str(board))})\n"
        f"checkpoint   {newest}\n"
        f"\nnext         python -m pipeline evaluate --run {shlex.quote(str(run_dir))}\n"
        f"             python -m pipeline fill-mask --run {shlex.quote(str(run_dir))} 'your text with a [MASK].'\n"
        "             python -m preprocessing build --help     your own text into shards\n"
        "             python -m pipeline pretrain --help       other recipes, --set, --dry-run"
    )
