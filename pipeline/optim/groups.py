"""Parameter groups: which rule trains which tensor, and the parts in which an update goes."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from pipeline.config.schema import RunConfig
from pipeline.model.invariant_groups import separately_invariant_groups
from pipeline.model.pretraining import PretrainingModel
from pipeline.model.shortcut import is_omega
from pipeline.model.task_model import TaskModel

EVERYTHING = "everything"


SCALE_INVARIANT = "scale invariant"


Model = PretrainingModel | TaskModel


def parameter_groups(model: Model, config: RunConfig) -> list[dict[str, Any]]:
    """The groups of a recipe; every trainable parameter stands in exactly one, or ValueError names it.

    `sgd`: the scale invariant parameters go to SGD, the others to LAMB. `adamw`, `lamb`: everything to that. Biases and
    LayerNorm parameters of LAMB and AdamW are not decayed, as is usual, nor by any rule ω of Admin's shortcuts. With
    optim.clip_over = "matrix" every separately scale invariant set of tensors is a group and a clip set of its own.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optim, head = config.optim, config.head_optim
    groups: list[dict[str, Any]] = []

    def add(name: str, members: Mapping[str, Tensor], **settings: Any) -> None:
        if members:
            groups.append({"name": name, "params": list(members.values()), "names": list(members), **settings})

    def add_decayed_and_not(name: str, members: Mapping[str, Tensor], weight_decay: float, **settings: Any) -> None:
        add(name, {n: p for n, p in members.items() if p.ndim > 1}, weight_decay=weight_decay, **settings)
        add(f"{name}, not decayed", {n: p for n, p in members.items() if p.ndim <= 1}, weight_decay=0.0, **settings)

    if optim.rule == "adamw":
        settings = {"betas": optim.betas, "eps": optim.eps, "max_grad_norm": optim.max_grad_norm}
        add_decayed_and_not(
            EVERYTHING, trainable, optim.weight_decay, rule="adamw", clip_set=EVERYTHING, lr=optim.lr, **settings
        )
    elif optim.rule == "lamb":
        settings = {"betas": optim.betas, "eps": optim.eps}
        add_decayed_and_not(EVERYTHING, trainable, optim.weight_decay, rule="lamb", lr=optim.lr, **settings)
    else:
        invariant = model.scale_invariant_names() if config.model.encoder != "bert" else set(trainable)
        members = {n: p for n, p in trainable.items() if n in invariant}
        whole = SCALE_INVARIANT if config.model.encoder != "bert" else EVERYTHING
        decayed = {n: p for n, p in members.items() if not is_omega(n)}
        for name, part in _matrices(model, members).items() if optim.clip_over == "matrix" else [(whole, decayed)]:
            add(name, part, rule="sgd", clip_set=name, lr=optim.lr, weight_decay=optim.weight_decay, clip_c=optim.clip_c)
        omegas = {n: p for n, p in members.items() if is_omega(n)}
        add(f"{whole}, not decayed", omegas, rule="sgd", clip_set=whole, lr=optim.lr, weight_decay=0.0, clip_c=optim.clip_c)
        rest = {n: p for n, p in trainable.items() if n not in invariant}
        add_decayed_and_not("head", rest, head.weight_decay, rule="lamb", lr=head.lr, betas=head.betas, eps=head.eps)
    groups = in_parts(groups, config.train.update_elements)
    check_groups(trainable, groups)
    return groups


def in_parts(groups: Sequence[dict[str, Any]], update_elements: int) -> list[dict[str, Any]]:
    """The groups cut into parts that are updated one after the other, the small tensors first; 0: as they are.

    ZeRO flattens the gradient of one group and copies it to fp32 before it updates that group and frees its gradient, 6
    bytes a parameter beside bf16 gradients of 2. So the first part, which meets all gradients, is small (`update_elements`,
    or a 64th of the model), and each later one may have a third of what is freed by then: the peak stays that of the first.
    """
    if update_elements == 0:
        return list(groups)
    members = [(p.numel(), at, name, p) for at, g in enumerate(groups) for name, p in zip(g["names"], g["params"], strict=True)]
    first = max(update_elements, sum(size for size, *_ in members) // 64)
    parts: list[dict[str, Any]] = []
    part_of: dict[int, dict[str, Any]] = {}  # of each group the part that is being filled
    freed = filled = 0
    for size, at, name, parameter in sorted(members, key=lambda member: member[:2]):
        if filled and filled + size > max(first, freed // 3):
            part_of, freed, filled = {}, freed + filled, 0
        if at not in part_of:
            part_of[at] = {**groups[at], "names": [], "params": []}
            parts.append(part_of[at])
        part_of[at]["names"].append(name)
        part_of[at]["params"].append(parameter)
        filled += size
    return parts


def _matrices(model: Model, members: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The separately scale invariant sets among `members`, each under the name of its first tensor."""
    name_of = {id(p): name for name, p in members.items()}
    sets = [[name_of[id(t)] for t in tensors if id(t) in name_of] for tensors in separately_invariant_groups(model)]
    return {names[0]: {name: members[name] for name in names} for names in sets if names}


def check_groups(trainable: Mapping[str, Tensor], groups: Sequence[dict[str, Any]]) -> None:
    """ValueError unless every trainable parameter stands in exactly one group."""
    seen: dict[int, str] = {}
    for group in groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            if id(parameter) in seen:
                raise ValueError(f"parameter {name} is in two groups: {seen[id(parameter)]!r} and {group['name']!r}")
            seen[id(parameter)] = group["name"]
    missing = [name for name, parameter in trainable.items() if id(parameter) not in seen]
    if missing:
        raise ValueError(f"no group trains {', '.join(missing)}: put every parameter in one group, or freeze it")
