"""Building a DeepSpeed engine whose step() takes its decision from our optimiser."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.engine.deepspeed_import import DeepSpeedZeroOptimizer, deepspeed, quiet
from pipeline.engine.deepspeed_internals import (
    after_step,
    before_norms,
    missing_name,
    read_partitions,
    split_masters,
    take_over_norms,
    was_skipped,
)
from pipeline.optim.optimizer import PretrainingOptimizer


def build_engine(
    model: nn.Module, optimizer: PretrainingOptimizer, ds_dictionary: dict[str, Any], device: torch.device, split: bool
) -> Any:
    """A DeepSpeed engine whose step() first decides over all partitions and all ranks, then updates each. `split`: fp32 masters
    are kept as bf16 parameters and remainders where both are on the rank's device.

    The model's parameters are broadcast from rank 0 by DeepSpeed. ValueError with the versions that work if this
    DeepSpeed does not keep what the decision needs.
    """
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    with quiet(), _no_initial_gradients():
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=ds_dictionary)
    wrapper = engine.optimizer
    if split:
        split_masters(wrapper, optimizer)
    optimizer.attach(read_partitions(wrapper, names, optimizer, torch.distributed.all_reduce, device))
    _decide_before_step(wrapper, optimizer)
    return engine


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
