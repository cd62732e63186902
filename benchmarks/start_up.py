"""From the command to the first step: what each launcher needs, and what of that torch alone takes.

    python -m benchmarks.start_up CORPUS [--rounds 5]

`tiny`, one thread a rank; the balanced start, which belongs to the recipe, is timed by the run itself and stands in a column of
its own. Files are cached by the first turn, which does not count; medians of the others, in turn.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.distributed.launch import LAUNCHER_VARIABLES
from pipeline.run.metrics_file import read_metrics

ROOT = Path(__file__).parent.parent
MODULE = ("-m", "pipeline", "pretrain", "--recipe", "tiny")
LAUNCHERS = {
    "torchrun, 2 ranks": ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *MODULE),
    "1 process": MODULE,
}
BALANCED = re.compile(r"balanced start from .* in ([\d.]+) s")


def first_step_s(words: Sequence[str], corpus: Path) -> tuple[float, float]:
    """Seconds until the first step is logged, and those of them that the balanced start took."""
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        settings = ("--set", "train.steps=2", "--set", "train.log_every_steps=1", "--set", "train.eval_sequences=2")
        began_s = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, *words, "--data", str(corpus), "--run-dir", str(run), *settings],
            cwd=ROOT,
            env=environment | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            metrics = run / "metrics.jsonl"
            while not (metrics.is_file() and read_metrics(metrics)[0]):
                if process.poll() is not None:
                    raise SystemExit(process.communicate()[0])
                time.sleep(0.01)
            seconds = time.perf_counter() - began_s
            said = BALANCED.search(process.communicate()[0])
    return seconds, float(said[1]) if said else 0.0


def import_s() -> float:
    """Seconds of a process that imports torch, and does nothing."""
    began_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - began_s


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in LAUNCHERS}
    imports = []
    for _ in range(args.rounds + 1):
        for name, words in LAUNCHERS.items():
            times[name].append(first_step_s(words, args.corpus))
        imports.append(import_s())
    print(f"{'seconds':<20}{'to the first step':>20}{'of them balanced start':>25}")
    for name, found in times.items():
        total, balance = (statistics.median(column) for column in zip(*found[1:], strict=True))
        print(f"{name:<20}{total:>20.1f}{balance:>25.1f}")
    print(f"{'import torch':<20}{statistics.median(imports[1:]):>20.1f}")


if __name__ == "__main__":
    main()
