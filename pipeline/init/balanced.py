"""The balanced start: every separately scale invariant group of tensors at its own equilibrium norm."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from pipeline.data.batch import Batch
from pipeline.model.invariant_groups import separately_invariant_groups
from pipeline.optim.relative_clip import equilibrium_norm

SHARED_DIRECTION = 3.0


@torch.no_grad()
def share_a_direction(weight_VD: Tensor, std: float, seed: int) -> None:
    """Give all rows of the invariant decoder one common direction, SHARED_DIRECTION times as long as a row from N(0, std²).

    Logits are cosines, so rows that point anywhere give every position logits of variance τ², which costs τ²/2 nats and
    which no small weight can turn down; at 8k rows a thousand steps did not unlearn it. What all rows share is the same in
    all logits of a position and drops out of the softmax: only 1/(1 + SHARED_DIRECTION²) of the variance is left.
    """
    generator = torch.Generator().manual_seed(seed)
    direction_D = torch.randn(weight_VD.shape[1], generator=generator)
    weight_VD.add_(SHARED_DIRECTION * std * direction_D.to(weight_VD.device))


def balance(model: nn.Module, gradient: Callable[[int], None], batches: int, lr: float, weight_decay: float) -> None:
    """Rescale each separately scale invariant group of tensors to its own equilibrium norm, in place.

    The groups are `separately_invariant_groups`; `gradient(i)` leaves that of the i-th of `batches` batches in `.grad`, and
    ||g_i||² is the mean of those gradients' square norms. Group i gets the norm at which weight decay and
    gradient noise balance, ||x_i|| = sqrt(||x_i||·||g_i||)·(lr/(wd(2 - lr·wd)))^(1/4) (sibert-d only: there ||x_i||·||g_i||
    does not depend on the scale of any group). Without this every matrix first spends of the order of 1/(lr·wd) steps drifting
    to that norm, with an effective rate that is off by orders of magnitude. The first gradients are larger than later ones, so
    the norm starts somewhat high and settles.
    """
    groups = separately_invariant_groups(model)
    square_norms = [0.0] * len(groups)
    for i in range(batches):
        model.zero_grad()
        gradient(i)
        for at, tensors in enumerate(groups):
            square_norms[at] += _norm([t.grad for t in tensors if t.grad is not None]) ** 2 / batches
    model.zero_grad()
    with torch.no_grad():
        for tensors, square_norm in zip(groups, square_norms, strict=True):
            x_norm, g_norm = _norm(tensors), square_norm**0.5
            if x_norm > 0 and g_norm > 0:
                factor = equilibrium_norm(x_norm * g_norm, lr, weight_decay) / x_norm
                for tensor in tensors:
                    tensor.mul_(factor)


def gradient_sums(model: nn.Module, batches: Iterable[Batch], beat: Callable[[], None] = lambda: None) -> list[Tensor]:
    """The sum of the gradients of these micro batches, by parameter, in float64, so that no order of them shows in fp32.
    `beat` is called at each. Leaves some gradient in `.grad`."""
    parameters = list(model.parameters())
    sums = [torch.zeros_like(parameter, dtype=torch.float64) for parameter in parameters]
    for batch in batches:
        beat()
        model.zero_grad()
        model(batch).loss.backward()
        for total, parameter in zip(sums, parameters, strict=True):
            if parameter.grad is not None:
                total += parameter.grad
    return sums


def put_mean_gradient(model: nn.Module, sums: Iterable[Tensor], count: int) -> None:
    """`.grad` becomes the mean over all `count` micro batches of the sums' gradients."""
    for total, parameter in zip(sums, model.parameters(), strict=True):
        parameter.grad = (total / count).to(parameter.dtype)


def _norm(tensors: Sequence[Tensor]) -> float:
    return torch.linalg.vector_norm(torch.stack([t.detach().norm() for t in tensors])).item() if tensors else 0.0
