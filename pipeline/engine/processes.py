"""This process among the others: the process group that it joins, its device, and what the ranks exchange."""

import json
import logging
import os
import warnings
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pipeline.distributed.launch import World, device_index, export
from pipeline.distributed.ranks import Ranks
from pipeline.distributed.rendezvous import come_together
from pipeline.engine.deepspeed_import import deepspeed, deepspeed_logger, deepspeed_torch_backend, quiet
from pipeline.engine.deepspeed_internals import missing_name
from preprocessing.base.command_line import RankError


def start_processes(
    world: World, collective_s: float = 600.0, asked_to_stop: Callable[[], bool] = lambda: False
) -> torch.device:
    """Join the process group (nccl with a GPU, gloo without); returns this process's device. A collective for which
    some rank does not come fails after `collective_s`, and so does the meeting before it (`come_together`, which says who is
    missing). RankError if the group cannot be made; AskedToStop if `asked_to_stop()` says so while others are waited for."""
    export(world)
    deepspeed_logger.setLevel(logging.ERROR)  # its warnings are of what is done on purpose here: a client optimiser, a CPU
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")  # DeepSpeed's calls, each step
    # DeepSpeed would compile a shared-memory all-reduce here: a minute at the first start, and a compiler as a requirement.
    if not hasattr(deepspeed_torch_backend, "build_shm_op"):
        raise missing_name("communication backend", "build_shm_op")
    vars(deepspeed_torch_backend)["build_shm_op"] = lambda: None
    device = _device(world)
    meeting = come_together(world, collective_s, asked_to_stop=asked_to_stop)
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        with quiet():
            deepspeed.init_distributed(backend, timeout=timedelta(seconds=collective_s), verbose=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise RankError(f"rank {world.rank} of {world.size}: {backend} makes no process group: {reason}") from error
    del meeting  # torch has a store of its own now
    return device


def _device(world: World) -> torch.device:
    """This process's GPU, which it then uses, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    index = device_index(world.local_rank, torch.cuda.device_count(), os.environ)
    if index is None:
        raise RankError(
            f"rank {world.rank} wants GPU {world.local_rank} of its node, which has {torch.cuda.device_count()}: "
            "start one process a GPU"
        )
    torch.cuda.set_device(index)
    os.environ["LOCAL_RANK"] = str(index)  # DeepSpeed takes it for the device
    return torch.device("cuda", index)


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """All-reduced in place, and returned."""
    torch.distributed.all_reduce(tensor)
    return tensor


def gather_objects(value: Any) -> list[Any]:
    """Every rank's Python object, in rank order, on every rank. It travels as a pickle: for `certify` alone."""
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def ranks_of(group: Any = None) -> Ranks:
    """The ranks of a process group (None: all, over the main one), who exchange JSON values in it."""
    return Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size(), partial(_gather_json, group=group))


def side_ranks() -> Ranks:
    """All ranks, over a process group of its own: for a thread that works beside the training. What watches over the whole
    run bounds its waiting; the group's own limit must not cut a slow file system short."""
    return ranks_of(torch.distributed.new_group(backend="gloo", timeout=timedelta(days=1)))


def _gather_json(value: Any, group: Any) -> list[Any]:
    device = torch.device("cuda" if torch.distributed.get_backend(group) == "nccl" else "cpu")
    mine = torch.frombuffer(bytearray(json.dumps(value), "utf-8"), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(sizes, torch.tensor([len(mine)], device=device), group=group)
    numbers = torch.cat(sizes).tolist()
    padded = torch.zeros(max(numbers), dtype=torch.uint8, device=device)
    padded[: len(mine)] = mine.to(device)
    parts = [torch.empty_like(padded) for _ in numbers]
    torch.distributed.all_gather(parts, padded, group=group)
    return [json.loads(bytes(part[:n].cpu().numpy())) for part, n in zip(parts, numbers, strict=True)]
