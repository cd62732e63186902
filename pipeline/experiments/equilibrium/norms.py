"""Norms of every separately scale invariant matrix along a training, and what theory says of them.

One step gives ||x||² -> (1 - ηλ)²·||x||² + η²·||g||², since <x, g> = 0, and ||g|| = σ/||x||. So ||x||² tends to
σ·sqrt(η/(λ(2 - ηλ))), from above like exp(-2ηλt), from below as fast as the clipping lets it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.experiments.trial import Outcome, Record
from pipeline.model.invariant_groups import separately_invariant_groups
from pipeline.model.pretraining import PretrainingModel
from pipeline.optim.relative_clip import equilibrium_norm

NEAR = 1.25  # a norm within this factor of where it settles has arrived
SETTLED = 0.3  # the last part of a training, over which means are taken


def matrix_norms(model: PretrainingModel) -> Callable[[], Mapping[str, Any]]:
    """Gives {"matrices": {name: [||x||, ||g||]}} of the last update, before it was applied. A matrix goes by the name of its
    first tensor and has its bias with it."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {names[id(tensors[0])]: tensors for tensors in separately_invariant_groups(model)}
    squares: dict[int, tuple[float, float]] = {}

    def note(parameter: Tensor) -> None:  # of several micro batches the last one sees the whole gradient
        assert parameter.grad is not None
        squares[id(parameter)] = (_square(parameter.detach()), _square(parameter.grad))

    for tensors in groups.values():
        for tensor in tensors:
            tensor.register_post_accumulate_grad_hook(note)

    def norm(tensors: Sequence[Tensor], which: int) -> float:
        return math.sqrt(sum(squares.get(id(tensor), (0.0, 0.0))[which] for tensor in tensors))

    return lambda: {"matrices": {name: [norm(tensors, 0), norm(tensors, 1)] for name, tensors in groups.items()}}


def _square(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x).square())


def settled(outcome: Outcome) -> list[Record]:
    """The records of the last part."""
    return outcome.steps[-max(1, round(SETTLED * len(outcome.steps))) :]


def mean_of(records: Sequence[Record], key: str) -> float:
    """The mean of a figure."""
    return sum(record[key] for record in records) / len(records)


def arrival(outcome: Outcome) -> int | None:
    """The first logged step before whose update the norm of everything is within NEAR of where it settles; None: never."""
    norm = mean_of(settled(outcome), "param_norm")
    logged = ((record["step"], record["param_norm"] / norm) for record in outcome.steps)
    return next((step - 1 for step, ratio in logged if 1 / NEAR <= ratio <= NEAR), None)


def prediction(records: Sequence[Record], lr: float, weight_decay: float) -> float:
    """The norm of everything that σ predicts, over these records: σ² is the mean of (||x||·||g||)², g as it was applied."""
    squares = [(record["param_norm"] * record["grad_norm"] * record["clip_coefficient"]) ** 2 for record in records]
    return equilibrium_norm(math.sqrt(sum(squares) / len(squares)), lr, weight_decay)


def predicted_steps(ratio: float, product: float, clip_c: float) -> float:
    """How long it takes from `ratio` times the equilibrium norm until the norm is within NEAR of it; product: lr · wd.

    From above weight decay alone has to do it: ln(ratio)/(lr·wd), to leading order. From below a clipped step lengthens x by
    1 + (C - 1)·lr·wd at most; without clipping one step carries it beyond, to about 1/ratio times the equilibrium.
    """
    if ratio > 1:
        return max(0.0, math.log((ratio**4 - 1) / (NEAR**4 - 1)) / (4 * product))
    if math.isinf(clip_c):
        return predicted_steps(math.sqrt(2 * product) / ratio, product, clip_c)
    growth = math.log((1 - product) ** 2 + 2 * clip_c * product) / 2
    return max(0.0, -math.log(NEAR * ratio) / growth)


def matrices(records: Sequence[Record], lr: float, weight_decay: float) -> dict[str, dict[str, float]]:
    """Of each matrix over these records: its mean "norm", and the one "predicted" by its own σ, as in `prediction`."""
    found = {}
    for name in records[0]["matrices"]:
        norms = [(*record["matrices"][name], record["clip_coefficient"]) for record in records]
        sigma = math.sqrt(sum((x * g * coefficient) ** 2 for x, g, coefficient in norms) / len(norms))
        mean = sum(x for x, *_ in norms) / len(norms)
        found[name] = {"norm": mean, "predicted": equilibrium_norm(sigma, lr, weight_decay)}
    return found
