"""What checkpoints cost: bytes beside the Adam baseline's, how long training stands still, loading, verifying.

    python -m benchmarks.checkpoint [--size base|small] [--rounds 5] [--directory DIR]

One process, the shapes of BERT-base (1.1e8 parameters) or of a model of 1e7. All times are medians of turns within one run and
are given as ratios, because machines are shared and noisy:

    stand-still     the copy in memory, all that the training waits for
    blocking        the same, and the writing, syncing and hashing
    torch.save      the parameters alone, and an fsync, as most programs save
    load            parameters, then the masters (in fp32 the same bytes again), from verified files; beside reading the files
    verify          beside `sha256sum` of the same files
"""

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import medians_s
from pipeline.checkpoint.reader import Checkpoint
from pipeline.checkpoint.resume import newest
from pipeline.checkpoint.snapshot import owned_tensors
from pipeline.checkpoint.writer import Kept, Saver, make_place
from pipeline.config.schema import ModelConfig, OptimConfig, RunConfig
from pipeline.distributed.ranks import ALONE
from pipeline.model.build import build_model
from pipeline.model.pretraining import PretrainingModel, parameter_count, parameter_shapes
from pipeline.optim.groups import parameter_groups
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.optim.partitions import replicated

SIZES = {"small": (6, 320, 8192), "base": (12, 768, 30522)}  # layers, width, vocabulary
MANIFEST = {"world_size": 1, "zero_stage": 0, "precision": "fp32", "saved_at": "", "made_from": {}, "progress": {}}


def setting(size: str, bert: bool, adam: bool) -> tuple[PretrainingModel, PretrainingOptimizer]:
    """A model and its optimiser, state included, in one process: SIBERT with the invariant head, or BERT."""
    layers, width, vocabulary = SIZES[size]
    shape = {"layers": layers, "width": width, "heads": width // 64, "ffn_width": 4 * width}
    kind = {"encoder": "bert", "head": "tied"} if bert else {"encoder": "sibert-a", "head": "invariant"}
    config = RunConfig(model=ModelConfig(**shape, **kind), optim=OptimConfig(rule="adamw" if adam else "sgd"))  # type: ignore[arg-type]
    torch.manual_seed(0)
    model = build_model(config, vocabulary)
    optimizer = PretrainingOptimizer(parameter_groups(model, config))
    optimizer.attach(replicated(list(model.named_parameters()), optimizer.all_groups))
    return model, optimizer


class Run:
    """A run directory with a saver, saving one model over and over."""

    def __init__(self, directory: Path, model: PretrainingModel, optimizer: PretrainingOptimizer) -> None:
        directory.mkdir()
        make_place(directory)
        self.directory, self.model, self.optimizer, self.step = directory, model, optimizer, 0
        self.saver = Saver(directory, ALONE, Kept(last=1))

    def save(self) -> None:
        """What training waits for."""
        self.step += 1
        manifest = {**MANIFEST, "parameters": parameter_shapes(self.model)}
        self.saver.start(self.step, owned_tensors(self.optimizer, 0), manifest)

    def wait(self) -> None:
        """Until it is on disk."""
        self.saver.give_probe({"ids": torch.zeros(2, 128, dtype=torch.int64)}, torch.tensor(1.0))
        saved = self.saver.wait()
        assert saved is not None
        assert saved.problem is None, saved.problem

    def save_and_wait(self) -> None:
        """A blocking save."""
        self.save()
        self.wait()

    def newest(self) -> Checkpoint:
        """Opened and verified."""
        found = newest(self.directory, print)
        assert found is not None
        return found


def torch_save(model: PretrainingModel, path: Path) -> None:
    """As most programs save, synced."""
    with path.open("wb") as file:
        torch.save(model.state_dict(), file)
        file.flush()
        os.fsync(file.fileno())


def saving_times(run: Run, directory: Path, rounds: int) -> dict[str, float]:
    """Median seconds. The stand-still is timed with an idle writer, which then may finish outside the clock."""
    stood_still: list[float] = []

    def stand_still() -> None:
        stood_still.append(medians_s({"save": run.save}, rounds=1, warm=0)["save"])
        run.wait()

    candidates: dict[str, Callable[[], object]] = {
        "stand-still": stand_still,
        "blocking": run.save_and_wait,
        "torch.save": lambda: torch_save(run.model, directory / "model.pt"),
    }
    medians = medians_s(candidates, rounds)
    return {**medians, "stand-still": float(np.median(stood_still[-rounds:]))}


def loading_times(run: Run, rounds: int) -> dict[str, float]:
    """Median seconds, everything in the page cache."""
    found = run.newest()
    files = sorted(found.directory.glob("*.safetensors"))

    def load() -> None:
        found.load_parameters(run.model)
        found.load_fragments(run.optimizer)

    candidates: dict[str, Callable[[], object]] = {
        "load": load,
        "read": lambda: [path.read_bytes() for path in files],
        "verify": found.verify,
        "sha256sum": lambda: subprocess.run(["sha256sum", *files], stdout=subprocess.DEVNULL, check=True),
    }
    return medians_s(candidates, rounds)


def measure(size: str, rounds: int, directory: Path) -> None:
    """Measure and print."""
    sizes = {}
    for name, adam in (("bert", True), ("sibert adam", True), ("sibert", False)):
        model, optimizer = setting(size, bert=name == "bert", adam=adam)
        run = Run(directory / name, model, optimizer)
        run.save_and_wait()
        sizes[name] = sum(path.stat().st_size for path in run.newest().directory.iterdir())
        print(f"{name:<28} {parameter_count(model):>12,} parameters {sizes[name]:>14,} bytes")
    print(f"{'bytes / same model, AdamW':<28} {sizes['sibert'] / sizes['sibert adam']:.3f}")
    print(f"{'bytes / BERT, AdamW':<28} {sizes['sibert'] / sizes['bert']:.3f}")
    saving = saving_times(run, directory, rounds)
    print(f"{'stand-still / blocking':<28} {saving['stand-still'] / saving['blocking']:.3f}")
    print(f"{'stand-still / torch.save':<28} {saving['stand-still'] / saving['torch.save']:.3f}")
    print(f"{'blocking / torch.save':<28} {saving['blocking'] / saving['torch.save']:.3f}")
    loading = loading_times(run, rounds)
    print(f"{'load / reading the files':<28} {loading['load'] / loading['read']:.3f}")
    print(f"{'verify / sha256sum':<28} {loading['verify'] / loading['sha256sum']:.3f}")


def main() -> None:
    """Measure in a directory that is removed afterwards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--rounds", type=int, default=5, help="timed turns of each candidate")
    parser.add_argument("--directory", type=Path, default=Path(), help="the file system to measure; needs 3 GB for base")
    args = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="checkpoint-benchmark-", dir=args.directory))
    try:
        measure(args.size, args.rounds, directory)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
