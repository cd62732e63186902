"""Admin's shortcuts: x_i = LN(ω_i ⊙ x_{i-1} + f_i(x_{i-1})) (Liu et al. 2020), and how ω is folded away after training.

ω is a trained vector of width D. `pipeline/init/admin.py` says where it starts.

Shapes: B batch, L sequence, D width.
"""

import torch
from torch import Tensor, nn

from pipeline.model.homogeneity import Row

BRANCHES = ("attention", "ffn")
_FIRST_LINEARS = {"attention": ("attention.query", "attention.key", "attention.value"), "ffn": ("ffn.inner",)}


class Shortcut(nn.Module):
    """ω ⊙ x, [B, L, D] -> [B, L, D]; ω starts at 1, where this is the identity bit for bit."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.omega = nn.Parameter(torch.ones(width))

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.omega * x_BLD

    def degrees(self, name: str, degree: int) -> list[Row]:
        """A product with a parameter."""
        return [Row(name, "shortcut times ω", degree, degree + 1)]


def is_omega(name: str) -> bool:
    """Is the parameter of this name an ω?"""
    return name.endswith("_shortcut.omega")


@torch.no_grad()
def folded(encoder: nn.Module) -> dict[str, Tensor]:
    """The parameters of a plain Post-LN encoder that computes what this one does, by name; without shortcuts they are its own.

    The LayerNorm before a sub-layer makes ω ⊙ x instead of x: γ' = γ⊙ω, β' = β⊙ω. What stands on the shortcut is then right,
    and the columns of the branch's first linears are divided by ω. ValueError for an element of ω that is 0: what the branch
    reads there is gone from the shortcut.
    """
    tensors = {name: parameter.detach() for name, parameter in encoder.named_parameters()}
    before = "embedding_norm"  # the LayerNorm whose output a sub-layer reads
    for i in range(len(list(encoder.get_submodule("layers").children()))):
        for branch in BRANCHES:
            here = f"layers.{i}"
            omega_D = tensors.pop(f"{here}.{branch}_shortcut.omega", None)
            if omega_D is not None:
                if not omega_D.all():
                    raise ValueError(
                        f"encoder.{here}.{branch}_shortcut.omega has an element that is 0: it cannot be folded away"
                    )
                for name in (f"{before}.weight", f"{before}.bias"):
                    tensors[name] = tensors[name] * omega_D
                for linear in _FIRST_LINEARS[branch]:
                    tensors[f"{here}.{linear}.weight"] = tensors[f"{here}.{linear}.weight"] / omega_D
            before = f"{here}.{branch}_norm"
    return tensors
