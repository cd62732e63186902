"""Initialisation: BERT's truncated normal, and the balanced start of scale invariant models."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.config import ModelConfig
from pipeline.model.encoder import Attention, Embedding
from pipeline.optim.relative_clip import equilibrium_norm

SHARED_DIRECTION = 3.0


def draw(model: nn.Module, config: ModelConfig, seed: int) -> None:
    """The weights of a recipe from its seed, in place and on the CPU; a balanced start is `balance`d after this."""
    truncated_normal(model, config.init_std, seed, quiet_token_types=config.encoder != "bert")
    offset_scores(model, config.score_offset, config.init_std)


@torch.no_grad()
def truncated_normal(model: nn.Module, std: float, seed: int, quiet_token_types: bool) -> None:
    """Every matrix from a normal of standard deviation `std` cut at two of them (paper section 5: 0.02, as in BERT);
    linear biases zero, LayerNorm 1 and 0. The MLM output bias keeps its log-unigram start.

    `quiet_token_types` (scale invariant encoders) starts the token type embeddings at zero. From N(0, 0.02²) they are one
    vector that all tokens share, a third of the embeddings' variance: in the heads in which that vector's own score is
    negative, ReLU left up to a fifth of the attention rows empty or nearly so (measured), and the gradients through nearly
    empty rows are what is ill-conditioned in this architecture.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std, generator=generator)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    for module in model.modules():
        if isinstance(module, Embedding) and quiet_token_types:
            nn.init.zeros_(module.token_type.weight)


@torch.no_grad()
def offset_scores(model: nn.Module, offset: float, std: float) -> None:
    """Start every query and key bias at `offset` standard deviations of a query (std·sqrt(D)), so that a score starts at
    offset²·K times that variance, K the head's width, instead of around 0.

    At 1 practically every score starts positive: attention starts as an average over the row, close to linear, and no row
    is nearly empty. Biases scale with the weights, so the invariance is untouched.
    """
    for module in model.modules():
        if isinstance(module, Attention) and offset:
            for linear in (module.query, module.key):
                nn.init.constant_(linear.bias, offset * std * linear.in_features**0.5)


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


def balance(model: nn.Module, backward: Callable[[], None], lr: float, weight_decay: float) -> None:
    """Rescale each separately scale invariant group of tensors to its own equilibrium norm, in place.

    The groups are `separately_invariant_groups`; `backward` fills `.grad` from one representative batch. Group i gets the
    norm at which weight decay and gradient noise balance, ||x_i|| = sqrt(||x_i||·||g_i||)·(lr/(wd(2 - lr·wd)))^(1/4)
    (sibert-d only: there ||x_i||·||g_i|| does not depend on the scale of any group). Without this every matrix first
    spends of the order of 1/(lr·wd) steps drifting to that norm, with an effective rate that is off by orders of
    magnitude. The gradient of one batch is larger than later ones, so the norm starts somewhat high and settles.
    """
    model.zero_grad()
    backward()
    with torch.no_grad():
        for tensors in separately_invariant_groups(model):
            x_norm = torch.linalg.vector_norm(torch.stack([t.norm() for t in tensors])).item()
            g_norm = torch.linalg.vector_norm(torch.stack([t.grad.norm() for t in tensors if t.grad is not None])).item()
            if x_norm > 0 and g_norm > 0:
                factor = equilibrium_norm(x_norm * g_norm, lr, weight_decay) / x_norm
                for tensor in tensors:
                    tensor.mul_(factor)
    model.zero_grad()


def separately_invariant_groups(model: nn.Module) -> list[list[Tensor]]:
    """The tensors of sibert-d with the invariant head, grouped so that the loss is invariant under scaling any one group:
    the embeddings together, every linear's weight with its bias, every decoder alone."""
    embeddings: list[Tensor] = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    linears: list[list[Tensor]] = [list(m.parameters()) for m in model.modules() if isinstance(m, nn.Linear)]
    return [embeddings, *linears]
