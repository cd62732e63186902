"""Initialisation: BERT's truncated normal, and the balanced start of scale invariant models."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.model.encoder import Embedding
from pipeline.optim.relative_clip import equilibrium_norm


@torch.no_grad()
def truncated_normal(model: nn.Module, std: float, seed: int) -> None:
    """Every matrix from a normal of standard deviation `std` cut at two of them (paper section 5: 0.02, as in BERT);
    linear biases zero, LayerNorm 1 and 0. The MLM output bias keeps its log-unigram start."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std, generator=generator)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()


def quiet_token_types(model: nn.Module) -> None:
    """Token type embeddings at zero, where they still have a gradient. From N(0, 0.02²) they are one vector that all
    tokens of a sequence share, a third of the embeddings' variance: in the heads where the scores of that vector are
    negative, ReLU leaves up to a fifth of the attention rows empty or nearly so (measured), and gradients through nearly
    empty rows are what is most ill-conditioned in this architecture."""
    for module in model.modules():
        if isinstance(module, Embedding):
            nn.init.zeros_(module.token_type.weight)


def balanced(
    model: nn.Module, groups: list[list[Tensor]], backward: Callable[[], None], lr: float, weight_decay: float
) -> None:
    """Rescale each separately scale invariant group of tensors to its own equilibrium norm, in place.

    `groups` comes from `separately_invariant_groups`; `backward` fills `.grad` from one representative batch. Group i gets
    the norm at which weight decay and gradient noise balance, ||x_i|| = sqrt(||x_i||·||g_i||)·(lr/(wd(2 - lr·wd)))^(1/4)
    (sibert-d only: there ||x_i||·||g_i|| does not depend on the scale of any group). Without this every matrix first
    spends of the order of 1/(lr·wd) steps drifting to that norm, with an effective rate that is off by orders of
    magnitude. The gradient of one batch is larger than later ones, so the norm starts somewhat high and settles.
    """
    model.zero_grad()
    backward()
    with torch.no_grad():
        for tensors in groups:
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
    linears = [list(m.parameters()) for m in model.modules() if isinstance(m, nn.Linear)]
    return [embeddings, *linears]
