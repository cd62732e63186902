"""What each lever on the peak of step() brings and costs: SIBERT with the invariant head under ZeRO 1 in bf16, one rank.

    python -m benchmarks.memory_levers [--layers 12] [--rounds 7]

All variants are engines of one process, from the same weights, on the same batches; they take each step in turn, and times are
ratios of medians. The peak is of step() alone, bytes a parameter. The losses of a variant are compared with the first's.
"""

import argparse
import os
import time
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from pipeline.config.batch import BatchArithmetic
from pipeline.config.ds_config import deepspeed_dictionary, load_ds_config
from pipeline.config.load import changed, load_recipe
from pipeline.data.batch import Batch
from pipeline.distributed.launch import world_from
from pipeline.engine.build import build_engine
from pipeline.engine.processes import start_processes
from pipeline.memory.live import LiveBytes, count_on_all_threads
from pipeline.memory.system import System, random_micro_batch
from pipeline.model.build import build_model
from pipeline.optim.groups import parameter_groups
from pipeline.optim.optimizer import PretrainingOptimizer

SETTINGS = (
    *("model.encoder=sibert-d", "model.head=invariant", "data.objective=mlm", "data.seq_len=128"),
    *("batch.micro_sequences=4", "batch.global_sequences=4", "train.ds_config=zero1-bf16"),
)
VOCABULARY, LR = 8192, 0.01
BEFORE = {"contiguous_gradients": True, "reduce_bucket_size": 50_000_000, "allgather_bucket_size": 50_000_000}


@dataclass
class Variant:
    """One engine, and what was seen of it."""

    name: str
    zero: dict[str, Any]  # put over ds_configs/zero1-bf16.json
    update_elements: int
    own_norms: bool  # are DeepSpeed's own norms left out?
    split: bool = False  # are fp32 masters kept as bf16 parameters and remainders?
    built: Any = None
    whole_s: list[float] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)

    def build(self, system: System, device: torch.device) -> None:
        """The engine, from seed 0."""
        torch.manual_seed(0)
        config = changed(system.config, {"train.update_elements": self.update_elements})
        mechanics = load_ds_config(config.train.ds_config)
        mechanics["zero_optimization"] |= self.zero
        model = build_model(config, system.vocab_size).to(device)
        optimizer = PretrainingOptimizer(parameter_groups(model, config))
        batch = BatchArithmetic(1, system.micro_sequences, 1, system.micro_sequences)
        self.built = build_engine(model, optimizer, deepspeed_dictionary(mechanics, batch), device, self.split)
        for group in optimizer.all_groups:
            group["lr"] = LR
        if not self.own_norms:
            wrapper = self.built.optimizer
            del wrapper.get_grad_norm_direct, wrapper.complete_grad_norm_calculation_for_cpu_offload
            wrapper.check_grad_overflow = True

    def take_step(self, batch: Batch, device: torch.device, watched: bool) -> None:
        """One update; `watched` for memory, else for time."""
        began_s = time.perf_counter()
        out = self.built(batch)
        self.built.backward(out.loss)
        self.losses.append(out.loss.item())
        del out
        step_s = time.perf_counter()
        if watched:
            with LiveBytes(device) as live:
                live.mark("before")
                self.built.step()
                live.mark("step")
            self.peaks.append(live.stretches["step"].peak - live.stretches["before"].end)
            return
        self.built.step()
        self.whole_s.append(time.perf_counter() - began_s)
        self.step_s.append(time.perf_counter() - step_s)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    system = System("it", load_recipe("base-paper", [*SETTINGS, f"model.layers={args.layers}"]), VOCABULARY)
    count_on_all_threads()
    device = start_processes(world_from(os.environ))
    variants = [
        Variant("as DeepSpeed does it", BEFORE, 0, own_norms=False),
        Variant("without its norms", BEFORE, 0, own_norms=True),
        Variant("and in parts", BEFORE, 1_000_000, own_norms=True),
        Variant("and gradients apart", {}, 1_000_000, own_norms=True),
        Variant("and masters split (as shipped)", {}, 1_000_000, own_norms=True, split=True),
    ]
    for variant in variants:
        variant.build(system, device)
    parameters = sum(p.numel() for p in variants[0].built.module.parameters())
    generator = torch.Generator().manual_seed(1)
    for turn in range(args.rounds + 2):
        batch = random_micro_batch(system, generator).to(device)
        for variant in variants:
            variant.take_step(batch, device, watched=turn in (1,))
    first = variants[0]
    print(f"{parameters:,} parameters, {args.rounds} rounds after the first, {device.type}\n")
    print(
        "| variant | peak of step, bytes a parameter | time of step() | time of the whole step | largest difference of a loss |"
    )
    print("|---|---|---|---|---|")
    for variant in variants:
        apart = max(abs(a / b - 1) for a, b in zip(variant.losses, first.losses, strict=True))
        ratios = [median(getattr(variant, of)[1:]) / median(getattr(first, of)[1:]) for of in ("step_s", "whole_s")]
        held = 6 if variant.split else 8  # parameters 2, masters 4 (or remainders 2), gradients 2
        peak = held + min(variant.peaks) / parameters
        print(f"| {variant.name} | {peak:.2f} | {ratios[0]:.2f} | {ratios[1]:.2f} | {apart:.1e} |")


if __name__ == "__main__":
    main()
