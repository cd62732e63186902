"""How close predictions come to measurements: every stage, one and two ranks, both precisions, both systems, with and without
activation checkpointing. Prints the table of docs/memory.md; about half an hour on two cores.

    python -m benchmarks.memory_accuracy
"""

import argparse
import itertools
import sys

from pipeline.config.load import load_recipe
from pipeline.memory.measure import Measurement, measure
from pipeline.memory.predict import Prediction, predict
from pipeline.memory.system import System

SHAPE = ("model.layers=4", "model.width=512", "model.heads=8", "model.ffn_width=2048", "data.seq_len=128")
VOCABULARY, MICRO = 8192, 4
SYSTEMS = {
    "SIBERT + SGD": ("base-paper", "model.encoder=sibert-d", "model.head=invariant", "data.objective=mlm"),
    "BERT + AdamW": ("base-paper-bert",),
}


def system(name: str, stage: int, precision: str, checkpointing: bool, ranks: int) -> System:
    """One row's."""
    recipe, *settings = SYSTEMS[name]
    settings += [
        *SHAPE,
        f"train.ds_config=zero{stage}{'-bf16' * (precision == 'bf16')}",
        f"train.activation_checkpointing={str(checkpointing).lower()}",
        f"batch.micro_sequences={MICRO}",
        f"batch.global_sequences={MICRO * ranks}",
    ]
    return System(name, load_recipe(recipe, settings), VOCABULARY, ranks)


def worst(predicted: Prediction, measured: Measurement, which: str) -> float:
    """The largest relative error over the moments, with its sign."""
    errors = [sum(kinds.values()) / getattr(measured, which)[at] - 1 for at, kinds in getattr(predicted, which).items()]
    return max(errors, key=abs)


def main() -> int:
    """Prints one line a row; exit code 1 if one is further off than 5% (live) or 10% (peaks)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--stages", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    args = parser.parse_args()
    print("| system | ZeRO | precision | ranks | checkpointing | measured peak, MB | live off by | peaks off by | largest |")
    print("|---|---|---|---|---|---|---|---|---|")
    failed = False
    for name, stage, precision, size, checkpointing in itertools.product(
        args.systems, args.stages, ("bf16", "fp32"), args.ranks, (False, True)
    ):
        weighed = system(name, stage, precision, checkpointing, size)
        predicted, measured = predict(weighed), measure(weighed)
        live, peak = worst(predicted, measured, "live"), worst(predicted, measured, "peak")
        largest = predicted.largest / measured.largest - 1
        failed |= abs(live) > 0.05 or abs(peak) > 0.10
        print(
            f"| {name} | {stage} | {precision} | {size} | {'on' if checkpointing else 'off'} | {measured.largest / 1e6:.1f} "
            f"| {live:+.1%} | {peak:+.1%} | {largest:+.1%} |",
            flush=True,
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
