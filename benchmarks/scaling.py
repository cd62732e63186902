"""Bytes that really cross between ranks in a step, by ZeRO stage, beside what the formula says; and on paper for more GPUs.

    python -m benchmarks.scaling --ranks 2 4
    python -m benchmarks.scaling --paper base

The ranks run in a network namespace of their own (`unshare` and `ip`: Linux; no root where user namespaces are allowed), whose
loopback nobody else uses: what its counter says between two steps is what crossed, headers and all. P parameters of b bytes, W
ranks, one micro batch; all ranks together send

    stage 0          2 (W-1) P b    a ring's all-reduce of the gradients
    stages 1 and 2   3 (W-1) P b    the same, and each part of the parameters to everybody. To send gradients to their owners
                                    alone would take 2, but DeepSpeed 0.19.8 all-reduces them, unless
                                    "use_multi_rank_bucket_allreduce" is false
    stage 3          3 (W-1) P b    parameters for the forward and again for the backward pass, gradients to their owners

and a rank the W-th part of it. With a micro batches a step, stages 2 and 3 send gradients a times, stage 3 parameters, too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.floor import SIZES, operations
from pipeline.config.batch import BatchArithmetic
from pipeline.config.ds_config import deepspeed_dictionary, load_ds_config
from pipeline.config.load import load_recipe
from pipeline.config.schema import RunConfig
from pipeline.data.masking import predictions_per_sequence
from pipeline.distributed.launch import LAUNCHER_VARIABLES, world_from
from pipeline.engine.build import build_engine
from pipeline.engine.processes import start_processes
from pipeline.memory.system import System, random_micro_batch
from pipeline.model.build import build_model, skeleton
from pipeline.model.pretraining import parameter_count
from pipeline.optim.groups import parameter_groups
from pipeline.optim.optimizer import PretrainingOptimizer

STAGES = (0, 1, 2, 3)  # 3 last: it replaces torch's linear for the rest of the process
SIZES_HERE = ("model.layers=2", "model.width=256", "model.heads=4", "model.ffn_width=1024", "model.max_seq_len=32")
BATCH_HERE = ("data.seq_len=32", "batch.micro_sequences=2", "model.init=normal")
VOCABULARY = 4096
WARM, COUNTED = 2, 3  # steps
BF16_BYTES = 2


@dataclass(frozen=True)
class Row:
    """Bytes of a step, all ranks together."""

    ranks: int
    stage: int
    parameters: int
    crossed: float

    @property
    def formula(self) -> int:
        """What the formula says."""
        return bytes_of_step(self.stage, self.ranks, self.parameters)


def bytes_of_step(stage: int, ranks: int, parameters: int) -> int:
    """That all ranks together send in bf16, with one micro batch a step."""
    return (3 if stage else 2) * (ranks - 1) * parameters * BF16_BYTES


def crossed_so_far(table: str = "/proc/net/dev") -> int:
    """Bytes that have come over the loopback of this network namespace."""
    lines = Path(table).read_text(encoding="utf-8").splitlines()
    return next(int(line.split(":")[1].split()[0]) for line in lines if line.strip().startswith("lo:"))


def recipe_of(stage: int, ranks: int) -> RunConfig:
    """A small SIBERT of the shipped kind, under the plain mechanics of a stage in bf16."""
    settings = (*SIZES_HERE, *BATCH_HERE, f"batch.global_sequences={2 * ranks}", f"train.ds_config=zero{stage}-bf16")
    return load_recipe("base", settings)


def count_here(stages: Sequence[int]) -> list[Row]:
    """On every rank of a launcher; the same rows on all."""
    world = world_from(os.environ)
    device = start_processes(world)
    rows = []
    for stage in stages:
        torch.manual_seed(0)
        config = recipe_of(stage, world.size)
        system, model = System("it", config, VOCABULARY, world.size), build_model(config, VOCABULARY).to(device)
        parameters = parameter_count(model)
        optimizer = PretrainingOptimizer(parameter_groups(model, config))
        batch = BatchArithmetic(world.size, 2, 1, 2 * world.size)
        dictionary = deepspeed_dictionary(load_ds_config(config.train.ds_config), batch)
        built = build_engine(model, optimizer, dictionary, device, config.train.split_masters)
        generator = torch.Generator().manual_seed(world.rank)
        before = 0
        for step in range(WARM + COUNTED):
            if step == WARM:
                before = _at_rest()
            built.backward(built(random_micro_batch(system, generator).to(device)).loss)
            built.step()
        rows.append(Row(world.size, stage, parameters, (_at_rest() - before) / COUNTED))
        built.destroy()
    return rows


def _at_rest() -> int:
    """The counter when every rank has sent what it had to send."""
    torch.distributed.barrier()
    crossed = crossed_so_far()
    torch.distributed.barrier()
    return crossed


def count(ranks: int) -> list[Row]:
    """The same, from a process that is not a rank. RuntimeError with the reason if they fail."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        command = [*launcher, "-m", "benchmarks.scaling", "--worker", str(out)]
        alone = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
        outer = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
        environment = {**outer, "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        done = subprocess.run([*alone, *command], env=environment, capture_output=True, text=True, check=False)
        if not out.exists():
            lines = [line for line in done.stderr.splitlines() if "rror" in line] or done.stderr.splitlines()
            raise RuntimeError(f"{ranks} ranks: not counted: {lines[-1] if lines else 'no message'}")
        return [Row(**row) for row in json.loads(out.read_text(encoding="utf-8"))]


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = ["| ranks | ZeRO | parameters | crossed in a step, MB | formula, MB | ratio |", "|---|---|---|---|---|---|"]
    for row in rows:
        ratio = f"{row.crossed / row.formula:.3f}" if row.formula else "–"
        cells = (row.ranks, row.stage, f"{row.parameters:,}", f"{row.crossed / 1e6:.3f}", f"{row.formula / 1e6:.3f}", ratio)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


# --- on paper ----------------------------------------------------------------------------------------------------------------

NODE_GPUS = 8
INSIDE, BETWEEN = 300e9, 50e9  # bytes a second and GPU, one way: NVLink of an H100; one 400 Gb/s adapter a GPU
RATE = 400e12  # operations a second and GPU that a step reaches, bf16
TOKENS = 16_384  # of a rank's micro batch


def paper(name: str, gpus: Sequence[int]) -> str:
    """Markdown: seconds of a step's computing and communicating, not overlapped, and the part that computing has of both."""
    size = SIZES["base-512" if name == "base" else name]
    parameters = parameter_count(skeleton(load_recipe(name, ["model.init=normal"]), size.vocabulary))
    sequences = TOKENS // size.seq_len
    compute_s = operations(size, sequences, sequences * predictions_per_sequence(size.seq_len)) / RATE
    lines = [
        "| GPUs | ZeRO | computing, ms | communicating, ms | efficiency | with 8 micro batches |",
        "|---|---|---|---|---|---|",
    ]
    for ranks in gpus:
        bandwidth = INSIDE if ranks <= NODE_GPUS else BETWEEN
        for stage in (1, 2, 3):
            once_s = bytes_of_step(stage, ranks, parameters) / ranks / bandwidth
            again = {1: 1.0, 2: (8 * 2 + 1) / 3, 3: 8.0}[stage]  # of 8 micro batches: stage 2's gradients, stage 3's all
            plain, accumulated = compute_s / (compute_s + once_s), 8 * compute_s / (8 * compute_s + again * once_s)
            cells = (ranks, stage, f"{1e3 * compute_s:.1f}", f"{1e3 * once_s:.1f}", f"{plain:.0%}", f"{accumulated:.0%}")
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return f"{name}: {parameters:,} parameters, {TOKENS:,} tokens a rank\n\n" + "\n".join(lines)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[], metavar="W", help="count the bytes of so many ranks here")
    parser.add_argument("--paper", nargs="+", choices=("base", "large"), default=[], help="extrapolate to 8, 64 and 512 GPUs")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        rows = count_here(STAGES)
        if world_from(os.environ).is_main:
            args.worker.write_text(json.dumps([vars(row) for row in rows]), encoding="utf-8")
        sys.stdout.flush()
        os._exit(0)  # as pipeline/__main__.py does: torch's threads have aborted at the end of the interpreter
    if args.ranks:
        print(table([row for ranks in args.ranks for row in count(ranks)]))
    for name in args.paper:
        print(f"\n{paper(name, (8, 64, 512))}")


if __name__ == "__main__":
    main()
