"""The only import of deepspeed: processes, the engine, and the optimiser's place in it."""

import contextlib
import importlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.deepspeed_internals import (
    after_step,
    before_norms,
    loss_scale_of,
    missing_name,
    read_partitions,
    split_masters,
    take_over_norms,
    was_skipped,
)
from pipeline.launch import World, device_index, export
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.ranks import Ranks
from preprocessing.cli import RankError

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # otherwise DeepSpeed looks for CUDA's compiler
logging.getLogger("torch.distributed.elastic").setLevel(logging.ERROR)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import deepspeed
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer
    from deepspeed.utils import logger as deepspeed_logger

# `import deepspeed.comm.torch as …` would give torch itself: the package binds that name over its own module's.
_torch_backend = importlib.import_module("deepspeed.comm.torch")


def start_processes(world: World, collective_s: float = 600.0) -> torch.device:
    """Join the process group (nccl with a GPU, gloo without); returns this process's device. A collective for which
    some rank does not come fails after `collective_s`."""
    export(world)
    deepspeed_logger.setLevel(logging.ERROR)  # its warnings are of what is done on purpose here: a client optimiser, a CPU
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")  # DeepSpeed's calls, each step
    # DeepSpeed would compile a shared-memory all-reduce here: a minute at the first start, and a compiler as a requirement.
    if not hasattr(_torch_backend, "build_shm_op"):
        raise missing_name("communication backend", "build_shm_op")
    vars(_torch_backend)["build_shm_op"] = lambda: None
    device = _device(world)
    with _quiet():
        backend = "nccl" if device.type == "cuda" else "gloo"
        deepspeed.init_distributed(backend, timeout=timedelta(seconds=collective_s), verbose=False)
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


def build_engine(
    model: nn.Module, optimizer: PretrainingOptimizer, ds_dictionary: dict[str, Any], device: torch.device, split: bool
) -> Any:
    """A DeepSpeed engine whose step() first decides over all partitions and all ranks, then updates each. `split`: fp32 masters
    are kept as bf16 parameters and remainders where both are on the rank's device.

    The model's parameters are broadcast from rank 0 by DeepSpeed. ValueError with the versions that work if this
    DeepSpeed does not keep what the decision needs.
    """
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    with _quiet(), _no_initial_gradients():
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=ds_dictionary)
    wrapper = engine.optimizer
    if split:
        split_masters(wrapper, optimizer)
    optimizer.attach(read_partitions(wrapper, names, optimizer, torch.distributed.all_reduce, device))
    _decide_before_step(wrapper, optimizer)
    return engine


def loss_scale(built: Any) -> float:
    """What a built engine multiplies the loss by."""
    return loss_scale_of(built.optimizer)


def whole_parameters(built: Any) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """(parameter, its whole values on this rank) of everything that a built engine trains; under ZeRO 3 gathered one by one."""
    for parameter in built.module.parameters():
        partitioned = built.zero_optimization_stage() == 3
        with deepspeed.zero.GatheredParameters([parameter]) if partitioned else contextlib.nullcontext():
            yield parameter, parameter.detach().clone()


def _decide_before_step(wrapper: Any, optimizer: PretrainingOptimizer) -> None:
    """ZeRO's step() calls the client's once per group; the decision must come once, before the first of them."""
    wrapped_step: Callable[..., Any] = wrapper.step
    take_over_norms(wrapper, lambda: optimizer.decision is not None and optimizer.decision.finite)

    def step(*args: Any, **kwargs: Any) -> Any:
        before_norms(wrapper)
        optimizer.prepare()
        result = wrapped_step(*args, **kwargs)
        optimizer.finish(skipped=wrapper is not optimizer and was_skipped(wrapper))
        after_step(wrapper)
        return result

    wrapper.step = step


@contextlib.contextmanager
def _no_initial_gradients() -> Iterator[None]:
    """Stages 1 and 2 would start with an fp32 gradient of everything, which nothing reads: the largest peak of a run."""
    if not hasattr(DeepSpeedZeroOptimizer, "initialize_optimizer_states"):
        raise missing_name("DeepSpeedZeroOptimizer", "initialize_optimizer_states")
    made = DeepSpeedZeroOptimizer.initialize_optimizer_states
    DeepSpeedZeroOptimizer.initialize_optimizer_states = lambda self: made(self) if self.cpu_offload else None
    try:
        yield
    finally:
        DeepSpeedZeroOptimizer.initialize_optimizer_states = made


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """While DeepSpeed sets itself up it prints and warns of what the user cannot act on."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
