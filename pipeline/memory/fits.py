"""What a device of a given memory holds: the largest micro batch, the deepest model; and whether a run can be at all."""

import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from pipeline.memory.predict import model_states, predict
from pipeline.memory.system import System, with_layers


def largest_micro_batch(system: System, device_bytes: int) -> int:
    """Sequences at a time, up to a rank's share of the global batch; 0 if not even one fits."""
    share = system.config.batch.global_sequences // system.world_size

    def peak(micro: int) -> int:
        return predict(with_micro(system, micro)).largest

    return _largest(peak, max(1, share), device_bytes)


def most_layers(system: System, device_bytes: int) -> int:
    """About how many layers of the same width fit at the system's micro batch: each moment's peak is taken to be on the line
    through its own number of layers and twice that."""
    own = system.config.model.layers
    once, twice = (predict(with_layers(system, layers)).peak for layers in (own, 2 * own))
    sizes = [(sum(once[moment].values()), sum(twice[moment].values())) for moment in once]
    return max(0, min(own + math.floor((device_bytes - first) * own / (second - first)) for first, second in sizes))


def device_memory(local_ranks: int = 1) -> tuple[int, str]:
    """Bytes that a rank has here, and of what: its GPU, or its share of the machine (or of the cgroup it is confined to)."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory, "this GPU"
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        size = min(size, int(text))
    shared = f", shared by {local_ranks} ranks" if local_ranks > 1 else ""
    return size // local_ranks, f"this machine{shared}"


def check_fits(system: System, available: int, where: str) -> None:
    """ValueError if what a rank holds whatever the batch is more than there is; instant for models of any size."""
    needs, parameters = model_states(system)
    if needs > available:
        raise ValueError(
            f"{parameters:,} parameters under ZeRO {system.stage} in {system.precision}, {system.world_size} ranks: each "
            f"holds {needs / 2**30:,.1f} GiB before any activation, and {where} has {available / 2**30:,.1f} GiB: choose a "
            "smaller model, a higher ZeRO stage or more ranks (python -m pipeline memory --help)"
        )


def with_micro(system: System, micro: int) -> System:
    """The same with another micro batch."""
    return replace(system, config=replace(system.config, batch=replace(system.config.batch, micro_sequences=micro)))


def _largest(peak: Callable[[int], int], most: int, limit: int) -> int:
    """The largest number from 1 to `most` whose `peak` is within `limit`: peaks grow nearly in a straight line, so that a few
    guesses along the line are enough."""
    low, high = 0, most + 1  # low fits, high does not
    known = {1: peak(1)}
    if known[1] > limit:
        return 0
    low, guess = 1, min(2, most)
    while high - low > 1 and guess > low:
        known[guess] = peak(guess)
        if known[guess] <= limit:
            low = guess
        else:
            high = guess
        first, second = sorted(known)[-2:] if high > most else (low, high)
        slope = (known[second] - known[first]) / (second - first)
        on_the_line = low + int((limit - known[low]) / slope) if slope > 0 else high - 1
        guess = min(max(on_the_line, low + 1), high - 1)
    return low
