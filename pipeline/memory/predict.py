"""What each rank will hold, by kind, in each phase of a step, with no weight allocated.

Activations are traced on fake tensors (`trace`). What DeepSpeed 0.19.8 holds is written down, stage by stage, as it was
measured (docs/memory.md): between steps in `states`, in the backward pass in `reduction`, in step() in `update`. On W ranks:

    stage 0   everything whole; gradients are flattened for their all-reduce; bf16: fp32 masters, and fp32 gradients in step()
    stage 1   parameters whole, masters and moments 1/W; all gradients until the end of the backward pass, then the own ones
    stage 2   the same, but what others own goes as soon as a bucket is full
    stage 3   parameters, masters, moments and a buffer of gradients 1/W; beside them one bucket, and parameters that are
              gathered for a while

Split masters take 2 bytes instead of 4 and spare the fp32 copies of gradients; the update goes piece by piece.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

from pipeline.config.load import changed
from pipeline.memory.partition import Rank, fullest_rank
from pipeline.memory.reduction import Reduction
from pipeline.memory.states import between_steps
from pipeline.memory.system import COPIES, GRADIENTS, Kinds, System, plus
from pipeline.memory.trace import Passes, trace
from pipeline.memory.update import update


@dataclass(frozen=True)
class Prediction:
    """Bytes of the rank that holds most, by kind. `live` at the end of init, forward, backward and step, `peak` within them."""

    parameters: int
    live: dict[str, Kinds]
    peak: dict[str, Kinds]

    @property
    def largest(self) -> int:
        """Bytes at the worst moment of a step."""
        return max(sum(kinds.values()) for kinds in self.peak.values())


class NotPredicted(ValueError):
    """For this system there is no prediction; it may well train."""


def predict(system: System) -> Prediction:
    """Takes time in proportion to the layers, one to three seconds for twelve. NotPredicted for mechanics that are not written
    down here, and for a batch too large to be traced; ValueError for a model too large to be built without storage."""
    _check_mechanics(system)
    try:
        return _predict(system)
    except (RuntimeError, OverflowError, MemoryError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NotPredicted(f"{system.name}: too large to be traced ({what}): choose a smaller batch") from error


def _check_mechanics(system: System) -> None:
    name, zero = system.config.train.ds_config, system.zero
    remedy = "what then lives is not predicted; choose one of ds_configs/ without offload_optimizer"
    if "offload_optimizer" in zero:
        raise NotPredicted(f"{name} offloads the optimiser: {remedy}")
    if system.stage in (1, 2) and zero["contiguous_gradients"]:
        raise NotPredicted(f"{name} has contiguous_gradients under stage {system.stage}: {remedy}")
    if system.precision == "bf16" and system.mechanics.get("communication_data_type") != "bf16":
        raise NotPredicted(f"{name} communicates bf16 gradients in fp32: {remedy}")


@lru_cache(maxsize=128)  # searches for the largest batch, tables and reports ask for the same systems again
def _predict(system: System) -> Prediction:
    rank = fullest_rank(system)
    passes, at_the_end = _passes(_before_the_update(system))
    states = between_steps(rank.groups, system)
    held = plus(states, _gradients_before(rank), _gathered(rank))
    after = plus(states, {GRADIENTS: rank.held_gradients})
    return Prediction(
        rank.elements,
        live={"init": states, "forward": plus(held, passes.forward_end), "backward": after, "step": states},
        peak={
            "forward": plus(held, passes.forward_peak, _gathering(rank)),
            "backward": _larger(plus(held, passes.backward_peak), plus(held, at_the_end)),
            "step": max((plus(states, part) for part in update(rank)), key=lambda kinds: sum(kinds.values())),
        },
    )


def _before_the_update(system: System) -> System:
    """The same for all systems that differ only in how they update weights: their passes are traced once."""
    return replace(system, name="", config=changed(system.config, {"train.split_masters": False, "train.update_elements": 0}))


@lru_cache(maxsize=128)
def _passes(system: System) -> tuple[Passes, Kinds]:
    """Both passes, and what is there when the second one is over."""
    reduction = Reduction(fullest_rank(system))
    passes = trace(system, reduction.keep, gradients_before=system.accumulates and system.stage < 2)
    return passes, reduction.at_the_end(passes.backward_end)


def _gradients_before(rank: Rank) -> Kinds:
    """Of earlier micro batches; those that lie in the parameters' own .grad are in the trace."""
    return {GRADIENTS: rank.held_gradients} if rank.system.accumulates and rank.system.stage == 2 else {}


def _gathered(rank: Rank) -> Kinds:
    """Whole parameters that stage 3 holds in the passes beside its own part."""
    return _of_other_ranks(rank, "stage3_max_live_parameters")


def _gathering(rank: Rank) -> Kinds:
    """Stage 3: what arrives from the other ranks, before it is copied into whole parameters."""
    return _of_other_ranks(rank, "stage3_prefetch_bucket_size")


def _of_other_ranks(rank: Rank, limit: str) -> Kinds:
    system = rank.system
    if system.stage != 3 or system.world_size == 1:
        return {}
    return {COPIES: system.forward_bytes * min(rank.elements, system.zero[limit])}


def _larger(a: Kinds, b: Kinds) -> Kinds:
    return max(a, b, key=lambda kinds: sum(kinds.values()))
