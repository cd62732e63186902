"""The matrix products of one training step of ours, and nothing else: how many operations, and as candidates to be timed.

N tokens in sequences of T, width D, feed-forward width F, P predictions, vocabulary V: floating-point operations of a step

    3·(layers·2N(4D² + 2DF + 2TD) + 2PDV)

once forward, twice backward. Each product, forward and for both gradients, has its own shape.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Size:
    """A model's shape, and the sequence length it is timed at."""

    layers: int
    width: int
    vocabulary: int
    seq_len: int

    @property
    def heads(self) -> int:
        """Of width 64."""
        return self.width // 64

    @property
    def ffn_width(self) -> int:
        """Four times the width."""
        return 4 * self.width


SIZES = {
    "toy": Size(1, 64, 97, 16),
    "mini": Size(4, 256, 8192, 128),
    "base": Size(12, 768, 30_000, 128),
    "base-512": Size(12, 768, 30_000, 512),
    "large": Size(24, 1024, 30_000, 512),
}


def products(size: Size, sequences: int, predictions: int) -> list[tuple[int, int, int, int, int]]:
    """(how many in a forward pass, batch, m, k, n): the products [m, k] x [k, n] of ours; heads have width 64."""
    tokens, heads = sequences * size.seq_len, sequences * size.heads
    n, width, ffn_width, layers = tokens, size.width, size.ffn_width, size.layers
    return [
        (4 * layers, 1, n, width, width),  # q, k, v and the output
        (layers, 1, n, width, ffn_width),
        (layers, 1, n, ffn_width, width),
        (layers, heads, size.seq_len, 64, size.seq_len),  # scores
        (layers, heads, size.seq_len, size.seq_len, 64),  # weights with values
        (1, 1, predictions, width, size.vocabulary),
    ]


def operations(size: Size, sequences: int, predictions: int) -> float:
    """Of a step: forward, and twice as many backward."""
    return 3.0 * sum(2.0 * count * batch * m * k * n for count, batch, m, k, n in products(size, sequences, predictions))


def floor(size: Size, sequences: int, predictions: int, dtype: torch.dtype, device: torch.device) -> dict[str, tuple[int, Any]]:
    """By name (how often in a step, one product): y = a b, da = dy bᵀ, db = aᵀ dy."""
    candidates: dict[str, tuple[int, Any]] = {}
    for count, batch, m, k, n in products(size, sequences, predictions):
        a, b, dy = (torch.randn(batch, *shape, dtype=dtype, device=device) for shape in ((m, k), (k, n), (m, n)))
        for name, (left, right) in {"y": (a, b), "da": (dy, b.mT), "db": (a.mT, dy)}.items():
            candidates[f"{name} {batch}x{m}x{k}x{n}"] = (count, Product(left, right))
    return candidates


@dataclass(frozen=True)
class Product:
    """A matrix product to be timed."""

    left: Tensor
    right: Tensor

    def __call__(self) -> Tensor:
        return torch.matmul(self.left, self.right)
