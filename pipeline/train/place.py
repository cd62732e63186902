"""Where a training happens: this process among the others, and the directory that they all write into."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.checkpoint.layout import CHECKPOINTS
from pipeline.config.batch import BatchArithmetic, batch_arithmetic
from pipeline.config.ds_config import deepspeed_dictionary, load_ds_config, precision
from pipeline.config.schema import RunConfig
from pipeline.distributed.launch import World
from pipeline.distributed.ranks import Ranks
from pipeline.distributed.rendezvous import AskedToStop
from pipeline.distributed.stop_signals import StopRequest
from pipeline.engine.processes import ranks_of, start_processes
from pipeline.model.attention import attention_line
from pipeline.run.shared import APPEARS_WITHIN_S, check_shared
from pipeline.train.run_log import say
from preprocessing.base.files import try_to_write


@dataclass(frozen=True)
class Place:
    """This process among the others, its device, DeepSpeed's dictionary for them, and the batch they share."""

    world: World
    ranks: Ranks
    device: torch.device
    ds_dictionary: dict[str, Any]
    batch: BatchArithmetic

    def say(self, text: str) -> None:
        """One line for the user, from rank 0."""
        if self.ranks.is_main:
            say(text)


def meet(config: RunConfig, world: World, stop: StopRequest) -> Place | None:
    """Join the other processes. None: asked to stop while some of them had not come, and said so. ValueError: a batch that
    these ranks cannot share, or a DeepSpeed configuration that cannot be; RankError: see `start_processes`."""
    batch = batch_arithmetic(config.batch, world.size)
    ds_dictionary = deepspeed_dictionary(load_ds_config(config.train.ds_config), batch)
    limit_s = 2 * config.train.timeout_s + 60  # the watchdog comes first, with one line
    try:
        device = start_processes(world, limit_s, asked_to_stop=lambda: stop.reason is not None)
    except AskedToStop:
        say(f"stopped ({stop.reason}) while waiting for the other ranks; nothing has begun: the same command starts it")
        return None
    return Place(world, ranks_of(), device, ds_dictionary, batch)


def check_attention(config: RunConfig, place: Place) -> None:
    """Say what computes the attention, and which ranks differ. ValueError, on all ranks alike, if the recipe wants Triton's
    kernels and some rank cannot run them. A collective."""
    dtype = torch.bfloat16 if precision(place.ds_dictionary) == "bf16" else torch.float32
    lines = place.ranks.gather(place.ranks.together(lambda: attention_line(config, place.device, dtype)))
    if lines[0] is not None:
        place.say(lines[0])
    for rank, line in enumerate(lines):
        if line != lines[0]:
            place.say(f"rank {rank} has another {line}")


def check_directory(run_dir: Path, place: Place, timeout_s: float) -> None:
    """All ranks see the run directory that rank 0 has made, and its checkpoints', which a user may have put on another disk;
    every rank can do there what a save will need; what can be done without is said. ValueError or OSError, on all ranks
    alike. A collective."""
    for directory in (run_dir, run_dir / CHECKPOINTS):
        check_shared(directory, place.ranks, min(APPEARS_WITHIN_S, timeout_s / 4))
    for line in place.ranks.together(lambda: try_to_write(run_dir / CHECKPOINTS)):
        place.say(line)
