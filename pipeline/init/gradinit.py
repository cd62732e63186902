"""GradInit: one multiplier m_i for every tensor, such that one step of the optimiser lowers the loss most (Zhu et al. 2021).

    minimise over m  L(S̃; θ_m - η·A[g_S])   subject to   ||g_S||_p <= γ,      θ_m = (m_1·θ_1, m_2·θ_2, …), each m_i >= `least`

g_S is the gradient of the loss on the batch S at θ_m. Where its norm exceeds γ an iteration descends on the norm alone.
Elsewhere the step is taken as a constant, without a gradient through A or g_S, the loss on S̃ is differentiated where the step
leads, and the weights come back. Adam turns the gradients into changes of m; the two kinds of iterations have a mean each and
share the second moment, as in the authors' code. A tensor that starts at 0 has no multiplier.

The constraint differentiates a gradient, so attention is torch's plain one here: the fused kernels have no second derivative.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

ADAM_EPS = 1e-8
Loss = Callable[[], Tensor]  # a part of a batch's loss; the parts add up to it


@dataclass(frozen=True)
class Step:
    """Of the optimiser that will train: the order p of the norm that is bounded, A, and the γ that was published."""

    order: int
    direction: Callable[[Sequence[Tensor]], list[Tensor]]
    gamma: float


def normalised(gradient: Sequence[Tensor]) -> list[Tensor]:
    """g/||g||, of all tensors together."""
    length = norm(gradient, 2)
    return [g / length if length else g for g in gradient]


STEPS = {
    "sgd": Step(2, normalised, 1.0),
    "adamw": Step(1, lambda gradient: [g.sign() for g in gradient], 1000.0),  # Adam's first step
}


@dataclass(frozen=True)
class Settings:
    """`eta`: the length of the step; `gamma`: the bound of the norm; `lr`, `betas`: of Adam on the multipliers."""

    step: Step
    eta: float
    gamma: float
    lr: float
    betas: tuple[float, float]
    least: float


@dataclass(frozen=True)
class Iteration:
    """What one iteration saw: the norm of the gradient on S, whether it exceeded γ, and else the loss on S̃ after the step."""

    norm: float
    constrained: bool
    loss: float | None


@dataclass
class Adam:
    """Its moments, one number a tensor; the means apart for iterations on the norm (True) and on the loss (False)."""

    second: Tensor
    mean: dict[bool, Tensor]
    count: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})


class Search:
    """Multipliers of `parameters`, by their names. Between iterations every tensor is its start times its multiplier.

    All parameters take the step and count in the norm; those that are 0 everywhere have no multiplier. Each is named once: a
    matrix that a model reads in two places has one multiplier.
    """

    def __init__(self, parameters: Mapping[str, Tensor], settings: Settings) -> None:
        self.settings, self.parameters = settings, list(parameters.values())
        self.scaled = [i for i, p in enumerate(self.parameters) if bool(p.detach().any())]
        self.names = [list(parameters)[i] for i in self.scaled]
        self.starts = [p.detach().clone() for p in self.parameters]
        self.multiplier = torch.ones(len(self.scaled), dtype=torch.float64)
        zeros = torch.zeros_like(self.multiplier)
        self.adam = Adam(zeros, {False: zeros, True: zeros})

    def iterate(self, batch: Sequence[Loss], next_batch: Sequence[Loss]) -> Iteration:
        """Look at the losses on S and on S̃ at the present multipliers, and change these. ValueError if they are not finite."""
        with sdpa_kernel(SDPBackend.MATH):
            gradient, _ = gradient_of(batch, self.parameters)
            length = norm(gradient, self.settings.step.order)
            self._check_finite(math.isfinite(length))
            constrained, loss = length > self.settings.gamma, None
            if constrained:
                slopes = self.slopes(norm_gradient(batch, self.parameters, gradient, self.settings.step.order))
            else:
                slopes, loss = self.slopes_after_step(gradient, next_batch)
        self._check_finite(bool(slopes.isfinite().all()))
        self._change(slopes, constrained)
        return Iteration(length, constrained, loss)

    def slopes_after_step(self, gradient: Sequence[Tensor], next_batch: Sequence[Loss]) -> tuple[Tensor, float]:
        """(∂/∂m of the loss on S̃ after the step, divided by η; that loss). The step is a constant."""
        with torch.no_grad():
            for p, direction in zip(self.parameters, self.settings.step.direction(gradient), strict=True):
                p.sub_(direction, alpha=self.settings.eta)
        after, loss = gradient_of(next_batch, self.parameters)
        self._put()
        return self.slopes(after) / self.settings.eta, loss

    def slopes(self, gradient: Sequence[Tensor]) -> Tensor:
        """∂/∂m_i = <∂/∂p_i, the start of p_i>, for p_i = m_i·start."""
        dots = [(gradient[i] * self.starts[i]).sum(dtype=torch.float64) for i in self.scaled]
        return torch.stack(dots).cpu()

    def multipliers(self) -> dict[str, float]:
        """As they are now."""
        return dict(zip(self.names, self.multiplier.tolist(), strict=True))

    def restore(self) -> None:
        """Every tensor as it was at first."""
        with torch.no_grad():
            for p, start in zip(self.parameters, self.starts, strict=True):
                p.copy_(start)

    def _check_finite(self, is_finite: bool) -> None:
        if not is_finite:
            raise ValueError(
                "GradInit: a gradient is not finite: lower model.init_std, model.gradinit.eta or model.gradinit.lr"
            )

    def _put(self) -> None:
        self.restore()
        with torch.no_grad():
            for i, m in zip(self.scaled, self.multiplier.tolist(), strict=True):
                self.parameters[i].mul_(m)

    def _change(self, slopes: Tensor, constrained: bool) -> None:
        """One step of Adam, then the clamp, then the weights."""
        beta1, beta2 = self.settings.betas
        self.adam.count[constrained] += 1
        self.adam.mean[constrained] = beta1 * self.adam.mean[constrained] + (1 - beta1) * slopes
        self.adam.second = beta2 * self.adam.second + (1 - beta2) * slopes**2
        mean = self.adam.mean[constrained] / (1 - beta1 ** self.adam.count[constrained])
        second = self.adam.second / (1 - beta2 ** sum(self.adam.count.values()))
        self.multiplier = (self.multiplier - self.settings.lr * mean / (second.sqrt() + ADAM_EPS)).clamp(
            min=self.settings.least
        )
        self._put()


def norm(tensors: Sequence[Tensor], order: int) -> float:
    """||·||_p of all tensors as one vector."""
    return float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(t, order) for t in tensors]), order))


def gradient_of(batch: Sequence[Loss], parameters: Sequence[Tensor]) -> tuple[list[Tensor], float]:
    """(the gradient of the sum of the losses, that sum); zeros for a parameter that none of them uses."""
    total = [torch.zeros_like(p) for p in parameters]
    value = 0.0
    for part in batch:
        loss = part()
        for sum_, g in zip(total, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
            if g is not None:
                sum_ += g
        value += float(loss.detach())
    return total, value


def norm_gradient(batch: Sequence[Loss], parameters: Sequence[Tensor], gradient: Sequence[Tensor], order: int) -> list[Tensor]:
    """∂||g||_p of the batch's gradient g, p = 1 or 2: the Hessian times sign(g) or g/||g||, part by part, so that one part's
    graph is held at a time."""
    direction = [g.sign() for g in gradient] if order == 1 else normalised(gradient)
    total = [torch.zeros_like(p) for p in parameters]
    for part in batch:
        first = torch.autograd.grad(part(), parameters, create_graph=True, allow_unused=True)
        inner = torch.stack([(g * d).sum() for g, d in zip(first, direction, strict=True) if g is not None]).sum()
        for sum_, g in zip(total, torch.autograd.grad(inner, parameters, allow_unused=True), strict=True):
            if g is not None:
                sum_ += g
    return total
