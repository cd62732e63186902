"""What a device of a given memory holds: the largest micro batch, the deepest model; and whether a run can be at all."""

import math
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from pipeline.config.load import changed
from pipeline.memory.predict import predict
from pipeline.memory.states import between_steps, groups_of, parameters_of_rule
from pipeline.memory.system import System, with_layers
from pipeline.model.build import MOST_LAYERS


def largest_micro_batch(system: System, device_bytes: int) -> int:
    """Sequences at a time, among those that divide a rank's share of the global batch; 0 if not even one fits."""
    share, rest = divmod(system.config.batch.global_sequences, system.world_size)
    if rest:
        return 0
    micros = [micro for micro in range(1, share + 1) if share % micro == 0]
    if predict(with_micro(system, share)).largest <= device_bytes:  # without accumulation a peak may be lower again
        return share
    fitting = bisect_right(micros[:-1], device_bytes, key=lambda micro: predict(with_micro(system, micro)).largest)
    return micros[fitting - 1] if fitting else 0


def most_layers(system: System, device_bytes: int) -> int:
    """About how many layers of the same width fit at the system's micro batch: each phase's peak is taken to be on the line
    through its own number of layers and twice that (or half, where twice is too many)."""
    own = system.config.model.layers
    other = 2 * own if 2 * own <= MOST_LAYERS else own // 2
    here, there = (predict(with_layers(system, layers)).peak for layers in (own, other))
    sizes = [(sum(here[phase].values()), sum(there[phase].values())) for phase in here]
    return max(0, min(own + math.floor((device_bytes - a) * (other - own) / (b - a)) for a, b in sizes))


def device_memory(environment: Mapping[str, str]) -> tuple[int, str]:
    """Bytes that a rank has here, and of what: its GPU, or its share of the machine (or of the cgroup it is confined to).
    `environment`: the launcher's, which says how many ranks share the machine."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory, "this GPU"
    size = min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_cgroup_limits()])
    of_launcher = environment.get("LOCAL_WORLD_SIZE") or environment.get("SLURM_NTASKS_PER_NODE", "1")
    ranks = int(of_launcher) if of_launcher.isdigit() else 1
    shared = f", shared by {ranks} ranks" if ranks > 1 else ""
    return size // ranks, f"this machine{shared}"


def _cgroup_limits() -> Iterator[int]:
    """Of the cgroups (version 2) that this process is in, from its own to the root's."""
    root, own = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
    lines = own.read_text().splitlines() if own.is_file() else []
    place = root / next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    for folder in (place, *place.parents):
        limit = folder / "memory.max"
        if root in (folder, *folder.parents) and limit.is_file() and (text := limit.read_text().strip()).isdigit():
            yield int(text)


def check_fits(system: System, available: int, where: str) -> None:
    """ValueError if what a rank holds whatever the batch is more than there is. A fine-tuning's model is not to be chosen."""
    groups = groups_of(system.config, system.vocab_size)
    needs, parameters = sum(between_steps(groups, system).values()), sum(parameters_of_rule(groups).values())
    pretraining = system.config.task.name == "pretraining"
    remedy = (
        "choose a smaller model, a higher ZeRO stage or more ranks (python -m pipeline memory --help), or with --dry-run say "
        "--gpu-gib G of where it will run"
    )
    if needs > available:
        raise ValueError(
            f"{parameters:,} parameters under ZeRO {system.stage} in {system.precision}, {system.world_size} ranks: each "
            f"holds {in_units(needs)} before any activation, and {where} has {in_units(available)}: "
            + (remedy if pretraining else "choose a higher ZeRO stage (--set train.ds_config=zero3) or more ranks")
        )


def check_peak(predicted: int, available: int, where: str) -> None:
    """ValueError if the largest peak of a step is more than there is."""
    if predicted > available:
        raise ValueError(
            f"each rank holds {in_units(predicted)} at the peak of a step, and {where} has {in_units(available)}: lower "
            "batch.micro_sequences, set train.activation_checkpointing = true (python -m pipeline memory --help), or say "
            "--gpu-gib G of where it will run"
        )


def in_units(size: int) -> str:
    """Bytes for a reader."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"


def with_micro(system: System, micro: int) -> System:
    """The same with another micro batch."""
    return replace(system, config=changed(system.config, {"batch.micro_sequences": micro}))
