"""`python -m pipeline VERB`: pretrain, evaluate, checkpoint, report, invariance, certify, memory."""

import argparse
import json
import math
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import checkpoint_verbs
from pipeline.memory import verb as memory_verb
from pipeline.stopping import outcome_in
from preprocessing import cli

# Before torch is imported: its C++ prints pages of frames when a peer is gone, which is said in one line here.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

PRETRAIN = """\
Train a recipe on a corpus. Runs as one process, or as one rank of several under torchrun, deepspeed or srun:

  python -m pipeline pretrain --recipe tiny --data demo/corpus --run runs/tiny
  torchrun --standalone --nproc-per-node 2 -m pipeline pretrain --recipe tiny --data demo/corpus --run-dir runs/tiny

Run the same command again and it goes on from the newest whole checkpoint in --run, with any number of ranks and any ZeRO
stage; a --run of another configuration or corpus is refused. --fresh begins anew and renames the run that is there to RUN.1;
it holds for the first start of a job, not when the job is requeued or restarted. RUN then holds report.html, summary.json,
metrics.jsonl, tensorboard/ and checkpoints/.

SIGTERM, SIGINT, SIGUSR1 or SIGUSR2, to any rank: all ranks end the same step, save, and exit with 75 (not finished: run the
same command again). If a rank dies or hangs the others end, within train.timeout_s, and say which.
"""
EVALUATE = """\
Loss on the held-out text of the run's corpus, with its newest checkpoint: over all predictions, and over those shown as
[MASK] alone (the others let the model copy). Masks are fixed, so that all runs on a corpus are compared on one task.
"""
REPORT = """\
Write RUN/report.html, one self-contained file: curves of losses, norms and clipping, throughput, the configuration and the
versions. Works on a run in progress, too. --compare puts other runs of the same corpus beside it.
"""
INVARIANCE = """\
Is the recipe's model exactly scale invariant? Prints the degree of every operation, derived from the paper's table and
measured, and three checks in float64, float32 and bf16: f(cx) = f(x), <x, ∇f> = 0, c∇f(cx) = ∇f(x). Exit code 0 if
everything passes, 1 if anything fails. base takes half a minute and 3 GB, large two minutes and 10 GB.
"""
CERTIFY = """\
Hold this machine's DeepSpeed against the recipe on paper. Small models are trained for 20 steps under each file of
ds_configs/ and compared with a float64 reference in one process: parameters, norms, thresholds, clip decisions.

  python -m pipeline certify                                      on this machine, with 1 and 2 ranks
  python -m pipeline certify --matrix full                        1, 2 and 4 ranks, every combination
  srun --ntasks 16 python -m pipeline certify --matrix full       the ranks of a launcher, across nodes

Exit code 0 if everything passes, 1 if anything fails.
"""


def _parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m pipeline", description="Pretrain SIBERT with SGD on DeepSpeed, evaluate, report.")
    # The deepspeed launcher puts this before the verb; the environment says the same.
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB", parser_class=cli.Parser)
    for name, summary, text, run, add_arguments in (
        ("pretrain", "train a recipe on a corpus", PRETRAIN, _pretrain, _add_pretrain_arguments),
        ("evaluate", "loss on the held-out text", EVALUATE, _evaluate, _add_evaluate_arguments),
        ("checkpoint", "list, verify, convert, prune", checkpoint_verbs.TEXT, None, checkpoint_verbs.add_arguments),
        ("report", "curves and figures of a run, in one HTML file", REPORT, _report, _add_report_arguments),
        ("invariance", "is a recipe's model exactly scale invariant?", INVARIANCE, _invariance, _add_invariance_arguments),
        ("certify", "is what runs here the recipe on paper?", CERTIFY, _certify, _add_certify_arguments),
        ("memory", "what each rank holds, beside AdamW", memory_verb.TEXT, memory_verb.run, _add_memory_arguments),
    ):
        verb = verbs.add_parser(
            name,
            help=summary,
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.set_defaults(run=run)
        add_arguments(verb)
    return parser


def _add_recipe_arguments(verb: argparse.ArgumentParser) -> None:
    from pipeline.config import recipe_names

    names = ", ".join(recipe_names())
    verb.add_argument("--recipe", required=True, metavar="NAME", help=f"one of {names}; or the path of a .toml file")
    verb.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one value of the recipe, such as optim.lr=0.1 or train.steps=500; repeatable",
    )


def _add_pretrain_arguments(verb: argparse.ArgumentParser) -> None:
    _add_recipe_arguments(verb)
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


def _add_evaluate_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--run", dest="run_dir", required=True, type=Path, metavar="DIR", help="a run with a checkpoint")
    verb.add_argument("--data", type=Path, metavar="DIR", help="where the run's corpus is now (default: where it was)")
    verb.add_argument("--sequences", type=int, metavar="N", help="the first N held-out sequences (default: all)")
    verb.add_argument("--json", action="store_true", help="figures alone on standard output, as JSON")


def _add_report_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--run", dest="run_dir", required=True, type=Path, metavar="DIR", help="a run directory")
    verb.add_argument("--compare", nargs="+", default=[], type=Path, metavar="DIR", help="runs to overlay")
    verb.add_argument("--png", type=Path, metavar="FILE", help="also draw the loss and norm curves alone, as a picture")


def _add_invariance_arguments(verb: argparse.ArgumentParser) -> None:
    _add_recipe_arguments(verb)
    verb.add_argument("--vocab-size", type=int, default=1024, metavar="N", help="default: 1024; nothing depends on it but time")
    verb.add_argument("--seed", type=int, default=0, metavar="N", help="of the weights and the input; default: 0")


def _add_memory_arguments(verb: argparse.ArgumentParser) -> None:
    _add_recipe_arguments(verb)
    memory_verb.add_arguments(verb)


def _add_certify_arguments(verb: argparse.ArgumentParser) -> None:
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


def _pretrain(args: argparse.Namespace) -> int:
    from pipeline.config import load_recipe
    from pipeline.launch import world_from

    config = load_recipe(args.recipe, args.overrides)
    world = world_from(os.environ)
    if args.gpu_gib is not None and not (args.dry_run and 0 < args.gpu_gib < math.inf):
        raise ValueError(f"--gpu-gib {args.gpu_gib:g} goes with --dry-run and is above zero; a real run looks at its GPU")
    if args.world_size is not None and not args.dry_run:
        raise ValueError("--world-size goes with --dry-run; a real run has as many ranks as the launcher starts")
    if args.dry_run:
        from pipeline.dry_run import dry_run
        from pipeline.memory.fits import device_memory

        world_size = world.size if args.world_size is None else args.world_size
        run_dir = None if args.fresh else args.run_dir
        device = device_memory({}) if args.gpu_gib is None else (int(args.gpu_gib * 2**30), "such a GPU")
        figures = dry_run(config, args.recipe, args.data, run_dir, world_size, device=device)
        if world.is_main:
            show(figures, args.json)
        return 0
    from pipeline.stopping import EXIT_CODE, is_restart
    from pipeline.train import Job, pretrain

    figures_stream = sys.stdout
    if args.json:
        sys.stdout = sys.stderr  # progress there; standard output is for the figures alone
    fresh = args.fresh and not is_restart(os.environ)
    with outcome_in(args.outcome if world.is_main else None) as outcome:
        finished = pretrain(Job(config, args.recipe, args.data, args.run_dir, fresh), world)
        outcome["outcome"] = "finished" if finished else "stopped"
    sys.stdout = figures_stream
    if not finished:
        return EXIT_CODE
    if world.is_main:
        from pipeline.json_file import read_object
        from pipeline.report import write_report

        report = write_report(args.run_dir)
        show(read_object(args.run_dir / "summary.json"), args.json)
        if not args.json:
            _say_what_next(args.run_dir, report)
    return 0


def _say_what_next(run_dir: Path, report: Path) -> None:
    newest = max((run_dir / "checkpoints").glob("step-*"))
    print(
        f"\nreport       {report}\n"
        f"tensorboard  {run_dir / 'tensorboard'}   (tensorboard --logdir {run_dir / 'tensorboard'})\n"
        f"checkpoint   {newest}\n"
        f"\nnext         python -m pipeline evaluate --run {shlex.quote(str(run_dir))}\n"
        "             python -m preprocessing build --help     your own text into shards\n"
        "             python -m pipeline pretrain --help       other recipes, --set, --dry-run"
    )


def _evaluate(args: argparse.Namespace) -> None:
    from pipeline.evaluate import evaluate_run

    if args.sequences is not None and args.sequences < 1:
        raise ValueError(f"--sequences {args.sequences}: expected at least 1")
    show(evaluate_run(args.run_dir, args.data, args.sequences), args.json)


def _report(args: argparse.Namespace) -> None:
    from pipeline.plots import write_curve_png
    from pipeline.report import write_report

    print(write_report(args.run_dir, args.compare))
    if args.png is not None:
        write_curve_png(args.run_dir, args.png, args.compare)
        print(args.png)


def _invariance(args: argparse.Namespace) -> int:
    from pipeline.config import load_recipe
    from pipeline.model.invariance import report

    if args.vocab_size < 8:
        raise ValueError(f"--vocab-size {args.vocab_size}: expected at least 8")
    text, passed = report(load_recipe(args.recipe, args.overrides), args.vocab_size, args.seed)
    print(text)
    return int(not passed)


def _certify(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from pipeline import certify
    from pipeline.launch import is_launched, world_from

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
            args.json_file.write_text(json.dumps([asdict(result) for result in results], indent=1), encoding="utf-8")
    return int(any(result.problem for result in results))


def show(figures: Mapping[str, Any], as_json: bool) -> None:
    """Figures as a table of name and value, or the same names as one JSON object. Missing ones are left out of the table."""
    if as_json:
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in figures.items()}
        print(json.dumps(finite, indent=1, allow_nan=False))
        return
    flat = {name: value for name, value in figures.items() if value is not None and not isinstance(value, dict)}
    width = max(map(len, flat))
    for name, value in flat.items():
        text = f"{value:.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
        print(f"{name:<{width}}  {text}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb in argv; returns the exit code."""
    return cli.run(_parser(), argv)


if __name__ == "__main__":
    for name in ("stdout", "stderr"):  # closed by the caller (>&-): there is nobody to tell
        setattr(sys, name, getattr(sys, name) or open(os.devnull, "w"))  # noqa: SIM115
    exit_code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is on disk. The teardown of torch's communication threads at the end of the interpreter has aborted a rank of
    # a run that was complete ("terminate called without an active exception"), which fails the whole job: skip it.
    os._exit(exit_code)
