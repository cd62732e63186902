"""`python -m pipeline memory`."""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from pipeline.config.load import changed, load_recipe
from pipeline.config.schema import RunConfig
from pipeline.verbs.arguments import add_recipe_arguments

TEXT = """\
What each rank's memory will hold, by kind, at each moment of a step: predicted in a second, with no weight allocated.

  python -m pipeline memory --recipe base --world-size 8 --zero 1 --precision bf16 --micro-batch 32 --versus adam
  python -m pipeline memory --recipe small --versus adam --measure       runs a few steps of each, in fresh processes

Live bytes are of torch's tensors. Not counted: what CUDA, NCCL and the libraries take for themselves (about 1 GiB of a GPU),
and what the allocator cannot use between tensors. docs/memory.md compares predictions with measurements.
"""
BERT_VOCABULARY, MOST, MOST_TOKENS = 30522, 2**31, 2**24


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Which recipe, on what ranks, beside what."""
    add_recipe_arguments(verb)
    verb.add_argument("--world-size", type=int, default=1, metavar="N", help="ranks (default: 1)")
    verb.add_argument("--zero", type=int, nargs="+", metavar="S", help="ZeRO stages 0 to 3 (default: that of the recipe)")
    verb.add_argument("--precision", choices=("fp32", "bf16"), help="default: that of the recipe")
    verb.add_argument("--micro-batch", type=int, metavar="B", help="sequences of a rank at a time (default: the recipe's)")
    verb.add_argument("--seq-len", type=int, metavar="L", help="tokens of a sequence (default: the recipe's)")
    verb.add_argument("--vocab-size", type=int, metavar="V", help=f"default: {BERT_VOCABULARY}, BERT's")
    verb.add_argument("--data", type=Path, metavar="DIR", help="take the vocabulary of this corpus")
    verb.add_argument(
        "--versus", choices=("adam",), help="beside it SIBERT with the other head, and BERT of the same shape with AdamW"
    )
    verb.add_argument(
        "--gpu-gib", type=float, metavar="G", help="also the largest micro batch, and about how many layers, that G GiB hold"
    )
    verb.add_argument("--measure", action="store_true", help="also run each for real on this machine, --world-size processes")
    verb.add_argument("--format", choices=("table", "json", "html"), default="table", help="default: table")
    verb.add_argument("--png", type=Path, metavar="FILE", help="also draw the comparison, as a picture")


def run(args: argparse.Namespace) -> int:
    """Print the comparison; 1 if something that was to be measured could not be."""
    from pipeline.memory.compare import Row, as_json, systems, table
    from pipeline.memory.fits import largest_micro_batch, most_layers
    from pipeline.memory.measure import measure
    from pipeline.memory.predict import predict

    config, stages = _config(args)
    rows, missing = [], False
    for system in systems(config, _vocab_size(args), args.world_size, stages, args.versus):
        row = Row(system, predict(system))
        if args.gpu_gib is not None:
            size = int(args.gpu_gib * 2**30)
            row = replace(row, micro_sequences=largest_micro_batch(system, size), layers=most_layers(system, size))
        if args.measure:
            print(f"measuring {system.name}, ZeRO {system.stage}", file=sys.stderr, flush=True)
            try:
                row = replace(row, measurement=measure(system))
            except ValueError as error:  # the others, and all predictions, are worth having
                missing = True
                print(f"python -m pipeline: {error}", file=sys.stderr, flush=True)
        rows.append(row)
    if args.png is not None:
        from pipeline.report.memory_page import write_png

        write_png(rows, args.png)
    if args.format == "json":
        print(json.dumps(as_json(rows), indent=1))
    elif args.format == "html":
        from pipeline.report.memory_page import html

        print(html(rows))
    else:
        print(table(rows))
    return int(missing)


def _config(args: argparse.Namespace) -> tuple[RunConfig, list[int | None]]:
    """The recipe with the options put into it, and the stages; ValueError for what cannot be."""
    from pipeline.memory.system import System, shipped

    for option, value in (("--world-size", args.world_size), ("--micro-batch", args.micro_batch), ("--gpu-gib", args.gpu_gib)):
        if value is not None and not 0 < value < MOST:
            raise ValueError(f"{option} {value}: expected a number above zero and below {MOST:,}")
    config = load_recipe(args.recipe, [*args.overrides, *_overrides(args)])
    if args.precision:
        name = shipped(System("", config, 8).stage, args.precision)
        config = changed(config, {"train.ds_config": name})
    stages = args.zero or [None]
    for stage in stages:
        if stage is not None and stage not in range(4):
            raise ValueError(f"--zero {stage}: expected a stage from 0 to 3")
    return config, stages


def _overrides(args: argparse.Namespace) -> list[str]:
    overrides = []
    if args.micro_batch:
        overrides.append(f"batch.micro_sequences={args.micro_batch}")
    if args.seq_len is not None:
        overrides.append(f"data.seq_len={args.seq_len}")
    return overrides


def _vocab_size(args: argparse.Namespace) -> int:
    if args.data is not None:
        if args.vocab_size is not None:
            raise ValueError("--vocab-size and --data: one of them says what the vocabulary is")
        from preprocessing.corpus.reader import open_corpus

        return open_corpus(args.data, verify="sizes").vocab_size
    if args.vocab_size is not None and not 8 <= args.vocab_size < MOST_TOKENS:
        raise ValueError(f"--vocab-size {args.vocab_size}: expected at least 8, and below {MOST_TOKENS:,}")
    return BERT_VOCABULARY if args.vocab_size is None else args.vocab_size
