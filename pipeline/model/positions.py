"""Rotary positions (Su et al. 2021, RoFormer): queries and keys are turned by angles that grow with their position.

A score then depends on the distance of query and key alone. A rotation keeps lengths, so it keeps every degree of homogeneity.
Shapes: B batch, H heads, L sequence, K width of a head (even).
"""

import torch
from torch import Tensor

from pipeline.model.homogeneity import has_degree

BASE = 10_000.0  # the longest wavelength is 2π times this many positions


def rotation(length: int, head_width: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(cos, sin) of position·BASE^(-2i/K) for pair i of K/2, each [L, K/2] in `dtype`; computed in float64, where the angle
    of a far position is still exact."""
    # Not a buffer: model.bfloat16() would round it, and it costs nothing beside one layer.
    frequency_P = BASE ** (-torch.arange(0, head_width, 2, device=device, dtype=torch.float64) / head_width)
    angle_LP = torch.arange(length, device=device, dtype=torch.float64)[:, None] * frequency_P
    return angle_LP.cos().to(dtype), angle_LP.sin().to(dtype)


@has_degree("rotary positions", is_homogeneous=True)
def rotate(x_BHLK: Tensor, cos_LP: Tensor, sin_LP: Tensor) -> Tensor:
    """Each pair (x_i, x_{i + K/2}) turned by its angle; [B, H, L, K] in the dtype of x."""
    a, b = x_BHLK.chunk(2, dim=-1)
    return torch.cat((a * cos_LP - b * sin_LP, b * cos_LP + a * sin_LP), dim=-1).to(x_BHLK.dtype)
