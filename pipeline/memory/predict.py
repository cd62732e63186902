"""What each rank will hold, by kind, at each moment of a step: instantly, with no weight allocated.

Activations are traced on fake tensors (`trace`). What DeepSpeed 0.19.8 holds is written down here, stage by stage, as it was
measured (docs/memory.md): N parameters, W ranks, `low` the bytes of the type that the forward pass computes in.

    stage 0   everything whole; gradients are flattened for their all-reduce; bf16: fp32 masters, and fp32 gradients in step()
    stage 1   parameters whole, masters and moments 1/W; all gradients until the end of the backward pass, then the own ones
    stage 2   the same, but what others own goes as soon as a bucket is full
    stage 3   parameters, masters, moments and a buffer of gradients 1/W; beside them one bucket, and parameters that are
              gathered for a while

Split masters take 2 bytes instead of 4 and spare the fp32 copies of gradients; the update goes piece by piece.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import nn

from pipeline.memory.system import COPIES, GRADIENTS, MASTERS, MOMENTS, PARAMETERS, WORKSPACE, System, skeleton, with_layers
from pipeline.memory.trace import Kinds, Meter, trace
from pipeline.optim.fp32_vector import longest_chunk
from pipeline.optim.groups import parameter_groups

FP32, MOST_LAYERS = 4, 256
MOMENTS_OF_RULE = {"sgd": 0, "lamb": 2, "adamw": 2}
ALL_REDUCED_AT_ONCE = 500_000_000  # elements, stage 0: DeepSpeed's own constant


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
    """NotPredicted for mechanics that are not written down here, and for sizes beyond what can be traced."""
    if system.config.model.layers > MOST_LAYERS:
        needs, parameters = model_states(system)
        raise NotPredicted(
            f"model.layers = {system.config.model.layers}: at most {MOST_LAYERS} are traced; the states of its {parameters:,} "
            f"parameters alone are {needs / 2**30:,.1f} GiB a rank"
        )
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


def _predict(system: System) -> Prediction:
    rank = Rank(system)
    passes = trace(system, rank.keep_gradient, gradients_before=system.accumulates and system.stage < 2)
    states, before = rank.states(), rank.gradients_before()
    held = _plus(states, before, rank.gathered())
    after = _plus(states, {GRADIENTS: rank.held_gradients})
    return Prediction(
        rank.elements,
        live={"init": states, "forward": _plus(held, passes.forward_end), "backward": after, "step": states},
        peak={
            "forward": _plus(held, passes.forward_peak, rank.gathering()),
            "backward": _larger(_plus(held, passes.backward_peak), _plus(held, rank.reduction(passes.backward_end))),
            "step": max((_plus(states, part) for part in rank.update()), key=lambda kinds: sum(kinds.values())),
        },
    )


def model_states(system: System) -> tuple[int, int]:
    """Bytes that a rank holds between steps, whatever the batch, and the model's parameters. From the models of one and of two
    layers, so that it takes no time for any number of them."""
    one, two = (Rank(with_layers(system, layers)) for layers in (1, 2))
    further = system.config.model.layers - 1
    states = [sum(rank.states().values()) for rank in (one, two)]
    return states[0] + further * (states[1] - states[0]), one.elements + further * (two.elements - one.elements)


class Rank:
    """What the engine holds on one rank: the one with the most gradients."""

    def __init__(self, system: System) -> None:
        self.system, self.low = system, 2 if system.precision == "bf16" else FP32
        self.world, self.stage = system.world_size, system.stage
        self.share = self.world if self.stage else 1
        model = skeleton(system.config, system.vocab_size)
        self.groups = [
            (group["rule"], {n: p.numel() for n, p in zip(group["names"], group["params"], strict=True)})
            for group in parameter_groups(model, system.config)
        ]
        self.shapes = {name: p.numel() for name, p in model.named_parameters()}
        self.elements = sum(self.shapes.values())
        self.own = self._own()
        self.own_names = {name for sizes in self.own for name in sizes}
        self.bucket = 0  # elements that wait for their reduction,
        self.others: list[nn.Parameter] = []  # and those among them that belong to other ranks

    def states(self) -> Kinds:
        """Between steps."""
        of_rule = [(MOMENTS_OF_RULE[rule], sum(sizes.values())) for rule, sizes in self.groups]
        offloaded = "offload_optimizer" in self.system.zero and torch.cuda.is_available()
        of_masters = self.system.master_bytes
        kinds = {
            PARAMETERS: self.low * self.elements // (self.world if self.stage == 3 else 1),
            MASTERS: 0 if offloaded or (self.stage == 0 and self.low == FP32) else of_masters * self.elements // self.share,
            MOMENTS: 0 if offloaded else FP32 * sum(moments * size for moments, size in of_rule) // self.share,
        }
        if self.stage == 3 and not offloaded:
            kinds[GRADIENTS] = self.low * self.elements // self.world
            kinds[COPIES] = self.low * (self.system.zero["reduce_bucket_size"] + self._persistent())
        return kinds

    def _persistent(self) -> int:
        """Parameters that stage 3 always keeps whole."""
        limit = self.system.zero["stage3_param_persistence_threshold"]
        return sum(size for size in self.shapes.values() if size <= limit)

    def _own(self) -> list[dict[str, int]]:
        """Of each group the tensors, with their sizes, of which this rank owns a part: their gradients are kept whole."""
        if self.stage not in (1, 2):
            return [sizes for _, sizes in self.groups]
        candidates = {rank for _, sizes in self.groups for rank in _with_a_start(sizes, self.world)}
        return max(([_overlapping(sizes, rank, self.world) for _, sizes in self.groups] for rank in candidates), key=_total)

    @property
    def held_gradients(self) -> int:
        """Bytes between the backward pass and the step; stage 3 holds its buffer always."""
        return 0 if self.stage == 3 else self.low * _total(self.own)

    def gradients_before(self) -> Kinds:
        """Of earlier micro batches; those that lie in the parameters' own .grad are in the trace."""
        return {GRADIENTS: self.held_gradients} if self.system.accumulates and self.stage == 2 else {}

    def gathered(self) -> Kinds:
        """Whole parameters that stage 3 holds in the passes beside its own part."""
        if self.stage != 3 or self.world == 1:
            return {}
        return {COPIES: self.low * min(self.elements, self.system.zero["stage3_max_live_parameters"])}

    def gathering(self) -> Kinds:
        """Stage 3: what arrives from the other ranks, before it is copied into whole parameters."""
        if self.stage != 3 or self.world == 1:
            return {}
        return {COPIES: self.low * min(self.elements, self.system.zero["stage3_prefetch_bucket_size"])}

    def keep_gradient(self, name: str, parameter: nn.Parameter, meter: Meter) -> None:
        """What happens to a gradient in the backward pass, as soon as it is there."""
        if self.stage < 2:
            return
        size, limit = parameter.numel(), self.system.zero["reduce_bucket_size"]
        if self.bucket and self.bucket + size > limit:
            meter.add(COPIES, self._reduced_bucket())
            meter.add(COPIES, -self._reduced_bucket())
            self.bucket = 0
            for other in self.others:
                other.grad = None
            self.others.clear()
        self.bucket += size
        if self.stage == 3:
            parameter.grad = None  # it is in the bucket, then in its buffer
        elif name not in self.own_names:
            self.others.append(parameter)

    def reduction(self, backward_end: Kinds) -> Kinds:
        """At the end of the backward pass, when the activations are gone: gradients, and the flat copy of the last bucket."""
        if self.stage == 0:
            return {GRADIENTS: self.low * self.elements, COPIES: self.low * min(self.elements, ALL_REDUCED_AT_ONCE)}
        if self.stage == 1:
            sizes = [size for _, group in self.groups for size in group.values()]
            return {GRADIENTS: self.low * self.elements, COPIES: self.low * _fullest(sizes, self._bucket_size())}
        return _plus(backward_end, {COPIES: self._reduced_bucket()})

    def _reduced_bucket(self) -> int:
        """Bytes beside a bucket while it is reduced: a flat copy, under stage 3 with the part of it that comes back."""
        return self.low * (self.bucket + (self.bucket // self.world if self.stage == 3 else 0))

    def _bucket_size(self) -> int:
        return int(self.system.zero["reduce_bucket_size"])

    def update(self) -> Iterator[Kinds]:
        """In step(), for the norms, then at each part of the update: the gradients that are left and copies of the part's."""
        norms, update = (max(self._temporaries(rule, sizes, of) for rule, sizes in self.groups) for of in ("norms", "update"))
        yield {GRADIENTS: self.held_gradients, WORKSPACE: norms}
        if self.stage == 0:
            copies = FP32 * self.elements if self.low < FP32 else 0
            yield {GRADIENTS: self.held_gradients, COPIES: copies, WORKSPACE: update}
            return
        to_fp32 = 0 if self.system.splits_masters or self.low == FP32 else FP32
        left = self.held_gradients
        for (rule, sizes), own in zip(self.groups, self.own, strict=True):
            flat = self.low if len(own) > 1 else 0  # one tensor is flat already
            freed = 0 if self.stage == 3 else self.low * sum(own.values())
            held = left - freed if flat + to_fp32 else left  # in the update: what is copied is freed first
            work = self._temporaries(rule, sizes, "update")
            for part in self._parts(list(sizes.values())):
                yield {GRADIENTS: left, COPIES: (flat + to_fp32) * part // self.world}
                yield {GRADIENTS: held, COPIES: (to_fp32 or flat) * part // self.world, WORKSPACE: work}
            left -= freed

    def _temporaries(self, rule: str, sizes: dict[str, int], of: str) -> int:
        """Bytes of fp32 temporaries while a group's norms are taken or it is updated: a few pieces at a time."""
        split, chunk = self.system.splits_masters, longest_chunk(torch.cuda.is_available())
        part = sum(sizes.values()) // self.share
        longest = part if split and rule != "lamb" else min(part, max(sizes.values()))
        if rule == "lamb":  # m, v and g of a direction, and the master; of the piece before, the direction and the master
            pieces = 3 + split + (1 + split) * (longest > chunk)
        elif split:  # a norm: the master is put together from two; an update: master, gradient, remainder
            pieces = 2 if of == "norms" else 3
        else:
            pieces = 1 if of == "norms" and self.low < FP32 else 0
        return FP32 * pieces * min(chunk, longest)

    def _parts(self, sizes: Sequence[int]) -> list[int]:
        """Stage 3 cuts a group once more."""
        if self.stage != 3:
            return [sum(sizes)]
        parts = [0]
        for size in sizes:
            if parts[-1] // self.world >= self.system.zero["sub_group_size"]:
                parts.append(0)
            parts[-1] += size
        return parts


def _overlapping(sizes: dict[str, int], rank: int, world: int) -> dict[str, int]:
    """Those tensors of a flat group of which the rank's part has elements."""
    each = -(-sum(sizes.values()) // (2 * world)) * 2
    ends = accumulate(sizes.values())
    spans = zip(sizes.items(), ends, strict=True)
    return {n: size for (n, size), end in spans if end - size < (rank + 1) * each and end > rank * each}


def _with_a_start(sizes: dict[str, int], world: int) -> set[int]:
    """The ranks in whose part of a flat group a tensor starts, and the next ones: one of them holds most."""
    each = -(-sum(sizes.values()) // (2 * world)) * 2
    starts = [end // each for end in (0, *accumulate(sizes.values()))]
    return {min(rank, world - 1) for start in starts for rank in (start, start + 1)}


def _total(groups: Sequence[dict[str, int]]) -> int:
    return sum(sum(sizes.values()) for sizes in groups)


def _fullest(sizes: Sequence[int], limit: int) -> int:
    """The most elements that are in a bucket of `limit` when it is reduced; a tensor alone is not copied."""
    fullest, bucket, tensors = 0, 0, 0
    for size in [*sizes, limit + 1]:
        if bucket + size > limit:
            fullest = max(fullest, bucket if tensors > 1 else 0)
            bucket, tensors = 0, 0
        bucket, tensors = bucket + size, tensors + 1
    return fullest


def _plus(*many: Kinds) -> Kinds:
    kinds: Kinds = {}
    for one in many:
        for kind, size in one.items():
            kinds[kind] = kinds.get(kind, 0) + size
    return kinds


def _larger(a: Kinds, b: Kinds) -> Kinds:
    return max(a, b, key=lambda kinds: sum(kinds.values()))
