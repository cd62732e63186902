"""What is read out of DeepSpeed's optimiser wrappers, all of it: which part of each tensor a rank owns, where its reduced
gradient lies before the step, and what has to be mended. Every name that is relied on is checked when the engine is built.

    stage 0, fp32     no wrapper: the client optimiser holds the parameters themselves
    stage 0, bf16     FP16_UnfusedOptimizer: one fp32 master a parameter
    stage 1, 2        DeepSpeedZeroOptimizer: one flat fp32 partition a group; offloaded ones live on the CPU
    stage 3           DeepSpeedZeroOptimizer_Stage3: one flat fp32 partition a sub-group, each parameter cut for itself

Where masters are split, the flat partitions are the bf16 parameters themselves.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pipeline.optim.fp32_vector import Fp32Vector
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.optim.partitions import Fragment, Partitions, replicated, whole_gradient

WORKING_VERSIONS = ("0.19.8",)
NAMES_RELIED_ON: dict[str, tuple[str, ...]] = {
    "FP16_UnfusedOptimizer": ("fp16_groups", "fp32_groups", "overflow", "step"),
    "DeepSpeedZeroOptimizer": (
        "averaged_gradients",
        "cpu_offload",
        "_wait_for_offload_copies",
        "single_partition_of_fp32_groups",
        "parallel_partitioned_bit16_groups",
        "real_dp_process_group",
        "check_grad_overflow",
        "get_grad_norm_direct",
        "complete_grad_norm_calculation_for_cpu_offload",
        "overflow",
        "step",
    ),
    "DeepSpeedZeroOptimizer_Stage3": (
        "fp16_groups",
        "fp32_partitioned_groups_flat",
        "fp16_partitioned_groups_flat",
        "sub_group_to_group_id",
        "grad_position",
        "get_param_id",
        "averaged_gradients",
        "offload_optimizer",
        "grad_partitions_flat_buffer",
        "get_grad_norm_direct",
        "complete_grad_norm_calculation_for_cpu_offload",
        "overflow",
        "step",
    ),
}
WITH_OFFLOADING = ("accumulated_grads_in_cpu",)  # of DeepSpeedZeroOptimizer
OF_PARAMETERS_1_2 = ("_hp_mapping",)
OF_OWNED_PARAMETERS_1_2 = ("_index_in_param_group",)
OF_MAPPINGS = ("param_group_index", "lp_fragment_address", "hp_fragment_address", "get_lp_grad_fragment")
OF_PARAMETERS_3 = ("ds_numel", "ds_process_group")
AllReduce = Callable[[Tensor], None]


def missing_name(owner: str, name: str) -> ValueError:
    """The error for a DeepSpeed that lacks a name."""
    return ValueError(
        f"this DeepSpeed's {owner} has no {name}: norms could not be taken over its partitions; "
        f"install deepspeed {' or '.join(WORKING_VERSIONS)} (pinned in requirements.txt)"
    )


def _require(thing: Any, owner: str, names: tuple[str, ...]) -> None:
    for name in names:
        if not hasattr(thing, name):
            raise missing_name(owner, name)


def read_partitions(
    wrapper: Any, names: Mapping[int, str], optimizer: PretrainingOptimizer, all_reduce: AllReduce, device: torch.device
) -> Partitions:
    """The fragments of this rank. `wrapper` is engine.optimizer, `names` the names of the trainable parameters by id, `device`
    the one that collectives want. ValueError if this DeepSpeed does not keep what is needed."""
    kind = type(wrapper).__name__
    world_size = torch.distributed.get_world_size()
    if wrapper is optimizer:
        named = [(names[id(p)], p) for group in optimizer.all_groups for p in group["params"]]
        return replicated(named, optimizer.all_groups, all_reduce, world_size)
    check_names(wrapper)
    if kind == "FP16_UnfusedOptimizer":
        return Partitions(_unfused_fragments(wrapper, names), all_reduce, world_size, device)
    if kind == "DeepSpeedZeroOptimizer":
        return Partitions(_zero_1_or_2_fragments(names, optimizer), all_reduce, 1, device)
    return Partitions(_zero_3_fragments(wrapper, names, optimizer.remainders), all_reduce, 1, device)


def check_names(wrapper: Any) -> None:
    """ValueError, with the versions that work, if the wrapper lacks a name that is relied on here."""
    kind = type(wrapper).__name__
    if kind not in NAMES_RELIED_ON:
        raise missing_name("engine", f"optimiser that is one of {', '.join(NAMES_RELIED_ON)} (it has {kind})")
    _require(wrapper, kind, NAMES_RELIED_ON[kind])
    if getattr(wrapper, "cpu_offload", False):
        _require(wrapper, kind, WITH_OFFLOADING)


def _unfused_fragments(wrapper: Any, names: Mapping[int, str]) -> tuple[Fragment, ...]:
    return tuple(
        Fragment(names[id(p)], group, 0, p.numel(), master, 0, partial(whole_gradient, p))
        for group, (params, masters) in enumerate(zip(wrapper.fp16_groups, wrapper.fp32_groups, strict=True))
        for p, master in zip(params, masters, strict=True)
    )


def _zero_1_or_2_fragments(names: Mapping[int, str], optimizer: PretrainingOptimizer) -> tuple[Fragment, ...]:
    fragments = []
    for parameter in (p for group in optimizer.source_params for p in group):
        owner = f"parameter {names[id(parameter)]}"
        _require(parameter, owner, OF_PARAMETERS_1_2)
        mapping = parameter._hp_mapping
        if mapping is None:  # none of it lives on this rank
            continue
        _require(parameter, owner, OF_OWNED_PARAMETERS_1_2)
        _require(mapping, f"mapping of {owner}", OF_MAPPINGS)
        (flat,) = optimizer.all_groups[mapping.param_group_index]["params"]
        own, held = mapping.lp_fragment_address, mapping.hp_fragment_address
        gradient = partial(_mapped_gradient, mapping, parameter)
        name = names[id(parameter)]
        rest = optimizer.remainders.get(flat)
        fragments.append(Fragment(name, mapping.param_group_index, own.start, held.numel, flat, held.start, gradient, rest))
    return tuple(fragments)


def _mapped_gradient(mapping: Any, parameter: Any) -> Tensor:
    gradient: Tensor = mapping.get_lp_grad_fragment(parameter._index_in_param_group)
    return gradient.view(-1)


def _zero_3_fragments(wrapper: Any, names: Mapping[int, str], remainders: Mapping[Tensor, Tensor]) -> tuple[Fragment, ...]:
    """Every rank's piece of a parameter has the same length; of the last pieces only a part, or nothing, is the parameter's.
    The rest is never written by DeepSpeed (torch.empty), so it must not be counted."""
    fragments = []
    for sub_group, params in enumerate(wrapper.fp16_groups):
        flat = wrapper.fp32_partitioned_groups_flat[sub_group]
        for index, parameter in enumerate(params):
            _require(parameter, f"parameter {names[id(parameter)]}", OF_PARAMETERS_3)
            _, start, piece_numel = wrapper.grad_position[wrapper.get_param_id(parameter)]
            offset = torch.distributed.get_rank(parameter.ds_process_group) * piece_numel
            numel = min(max(parameter.ds_numel - offset, 0), piece_numel)
            if numel == 0:
                continue
            gradient = partial(_zero_3_gradient, wrapper, sub_group, index, start, numel)
            group = wrapper.sub_group_to_group_id[sub_group]
            rest = remainders.get(flat)
            fragments.append(Fragment(names[id(parameter)], group, offset, numel, flat, start, gradient, rest))
    return tuple(fragments)


def _zero_3_gradient(wrapper: Any, sub_group: int, index: int, start: int, numel: int) -> Tensor:
    if wrapper.offload_optimizer:
        offloaded: Tensor = wrapper.fp32_partitioned_groups_flat[sub_group].grad
        return offloaded[start : start + numel]
    gradient: Tensor = wrapper.averaged_gradients[sub_group][index]
    return gradient.view(-1)[:numel]


def split_masters(wrapper: Any, optimizer: PretrainingOptimizer) -> None:
    """Where a rank holds fp32 masters beside the bf16 parameters that they belong to: let these stand in for the masters,
    as DeepSpeed itself does where both have one type, and keep only the rest of each master. DeepSpeed then flattens
    gradients without an fp32 copy, and its copy of masters into parameters is one of a tensor onto itself. ValueError if this
    DeepSpeed does not keep what is needed."""
    if wrapper is optimizer:
        return
    check_names(wrapper)
    if type(wrapper).__name__ == "DeepSpeedZeroOptimizer" and not wrapper.cpu_offload:
        masters = wrapper.single_partition_of_fp32_groups
        ranks = [torch.distributed.get_rank(group) for group in wrapper.real_dp_process_group]
        parameters = [parts[rank] for parts, rank in zip(wrapper.parallel_partitioned_bit16_groups, ranks, strict=True)]
    elif type(wrapper).__name__ == "DeepSpeedZeroOptimizer_Stage3" and not wrapper.offload_optimizer:
        masters, parameters = wrapper.fp32_partitioned_groups_flat, wrapper.fp16_partitioned_groups_flat
    else:
        return
    for at, part in enumerate(parameters):
        if part.dtype == torch.bfloat16:
            _split(masters, at, part.detach().requires_grad_(), optimizer)


@torch.no_grad()
def _split(masters: list[Any], at: int, parameters: Any, optimizer: PretrainingOptimizer) -> None:
    before, remainders = masters[at], torch.zeros_like(parameters, dtype=torch.int16)
    Fp32Vector(parameters.detach(), remainders).store(before)
    masters[at], optimizer.remainders[parameters] = parameters, remainders
    for group, source in zip(optimizer.all_groups, optimizer.source_params, strict=True):
        if group["params"] and group["params"][0] is before:  # stages 1 and 2; stage 3 puts in each when its turn comes
            group["params"] = [parameters]
            for mapping in (m for p in source if (m := p._hp_mapping) is not None):
                mapping.hp_fragment = parameters.narrow(0, mapping.hp_fragment_address.start, mapping.hp_fragment_address.numel)
    if hasattr(before, "ds_id"):
        parameters.ds_id = before.ds_id


def take_over_norms(wrapper: Any, is_finite: Callable[[], bool]) -> None:
    """Have ZeRO skip a step by our decision instead of norms of its own, which are not used for anything else (it does not
    clip here). They would cost another pass over the gradients, a float64 copy of the largest of them, and they overflow
    where ours do not."""

    def norm(*_: Any) -> Tensor:
        return torch.tensor(0.0 if is_finite() else -1.0)  # -1: DeepSpeed's own mark of an invalid norm

    if type(wrapper).__name__ in ("DeepSpeedZeroOptimizer", "DeepSpeedZeroOptimizer_Stage3"):
        wrapper.get_grad_norm_direct = wrapper.complete_grad_norm_calculation_for_cpu_offload = norm
        wrapper.check_grad_overflow = False  # stages 1 and 2: a look for infinities before the norms


def before_norms(wrapper: Any) -> None:
    """Wait for gradients that are still on their way to the CPU; the wrapper itself would wait only within its step."""
    if getattr(wrapper, "cpu_offload", False):
        wrapper._wait_for_offload_copies()


def after_step(wrapper: Any) -> None:
    """Stage 3, and the others when they offload, keep each gradient until the next one overwrites it: a parameter that the
    next loss does not use would get this step's gradient again."""
    kept: list[Tensor] = []
    if type(wrapper).__name__ == "DeepSpeedZeroOptimizer_Stage3":
        kept.append(wrapper.grad_partitions_flat_buffer)
        kept += [flat.grad for flat in wrapper.fp32_partitioned_groups_flat if wrapper.offload_optimizer]
    elif getattr(wrapper, "cpu_offload", False):
        kept += [flat.grad for flat in wrapper.single_partition_of_fp32_groups]
        kept += wrapper.accumulated_grads_in_cpu.values()
    for gradient in kept:
        gradient.zero_()


def was_skipped(wrapper: Any) -> bool:
    """Has the wrapper thrown the step away by its own judgement (its norms are fp32: they overflow where ours do not)?"""
    return bool(getattr(wrapper, "overflow", False))
