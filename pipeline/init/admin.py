"""Admin: where ω of every shortcut starts, from one profiling forward pass (Liu et al. 2020, section 4.2).

    x_i = LN(ω_i ⊙ x_{i-1} + f_i(x_{i-1})),   ω_1 = 1,   ω_{i+1}² = Var[ω_i x_{i-1}] + Var[f_i]

so that the shortcut outweighs each branch by all that has joined before it, and the output's sensitivity to the weights grows
with the logarithm of the depth, not with the depth. Var is the population variance over all elements, in float32, padding left
out.

Shapes: B batch, L sequence, D width.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.batch import Batch
from pipeline.model.pretraining import PretrainingModel
from pipeline.model.shortcut import BRANCHES

SubLayer = tuple[nn.Module, nn.Module]  # its branch f_i and its shortcut, whose ω is 1


@torch.no_grad()
def profile(sub_layers: Sequence[SubLayer], forward: Callable[[], Any], mask_BL: Tensor | None = None) -> list[float]:
    """ω_1, ω_2, … of the sub-layers in the order of the forward pass, in which each branch runs before its shortcut.

    `forward` runs them on a batch, once, and each shortcut is scaled by what has been found by then; no parameter changes.
    `mask_BL`: 1 on tokens, 0 on padding; None: no padding.
    """
    found: list[float] = []
    square = 1.0  # ω² of the shortcut that comes next
    of_branch = math.nan

    def after_branch(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal of_branch
        of_branch = variance(output, mask_BL)

    def at_shortcut(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        nonlocal square
        found.append(math.sqrt(square))
        scaled_BLD = found[-1] * output
        square = variance(scaled_BLD, mask_BL) + of_branch
        return scaled_BLD

    hooks = [branch.register_forward_hook(after_branch) for branch, _ in sub_layers]
    hooks += [shortcut.register_forward_hook(at_shortcut) for _, shortcut in sub_layers]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def variance(x_BLD: Tensor, mask_BL: Tensor | None) -> float:
    """Population variance over all elements that are not padding, in float32."""
    kept = x_BLD if mask_BL is None else x_BLD[mask_BL.bool()]
    return float(kept.float().var(correction=0))


def sub_layers_of(model: PretrainingModel) -> dict[str, SubLayer]:
    """All sub-layers of the encoder in their order, each under the name of its ω."""
    found = {}
    for i, layer in enumerate(model.encoder.layers):
        for branch in BRANCHES:
            name = f"encoder.layers.{i}.{branch}_shortcut.omega"
            found[name] = (getattr(layer, branch), getattr(layer, f"{branch}_shortcut"))
    return found


def omegas(model: PretrainingModel, batch: Batch) -> dict[str, float]:
    """Where every ω of the model starts, by its name: the model runs once on the batch, in train mode."""
    sub_layers = sub_layers_of(model)
    mask_BL = batch.attention_mask
    model.train()
    found = profile(list(sub_layers.values()), lambda: model.encoder(batch.input_ids, batch.token_type_ids, mask_BL), mask_BL)
    return dict(zip(sub_layers, found, strict=True))
