"""Dropout that is a function of the sample: which elements are zero follows from (seed, step, sample, site) and nothing else.

A sequence's key follows from the run's seed and the sample's counter, which counts over all steps and ranks
(`pipeline.data.dropout_keys`); a site is one place in the model. So ranks, micro batches, a resume, and the second forward pass
of activation checkpointing drop the same elements, and no generator has a state.

Bits: splitmix64 (Steele et al. 2014) of key, site and the number of the element's quarter; four elements share its 64 bits.

Shapes: B sequences, … the rest of a sequence's tensor, E elements of one sequence.
"""

import math

import torch
from torch import Tensor, nn

LEVELS = 1 << 16  # a fraction is rounded to a multiple of 1/LEVELS
GOLDEN = 0x9E3779B97F4A7C15
_TO_SIGNED = 1 << 64


class Dropout(nn.Module):
    """Zeroes `fraction` of a sequence's elements and divides the others by 1 - fraction, while it trains and has keys. Degrees
    (x; x): what it multiplies by depends on no parameter. `site`: see `number_sites`."""

    def __init__(self, fraction: float) -> None:
        super().__init__()
        self.dropped = round(fraction * LEVELS)
        self.site = 0

    def forward(self, x_B: Tensor, keys_B: Tensor | None) -> Tensor:
        if not self.training or self.dropped == 0 or keys_B is None:
            return x_B
        keep_BE = kept(keys_B, self.site, math.prod(x_B.shape[1:]), self.dropped)
        return x_B * (keep_BE.view(x_B.shape).to(x_B.dtype) * (LEVELS / (LEVELS - self.dropped)))


def number_sites(model: nn.Module) -> None:
    """Give each Dropout of a model a site of its own, in the order of its modules."""
    for site, module in enumerate(module for module in model.modules() if isinstance(module, Dropout)):
        module.site = site


def kept(keys_B: Tensor, site: int, elements: int, dropped: int) -> Tensor:
    """bool [B, E]: is the element kept? `dropped` of LEVELS are not."""
    start_B1 = _mix(keys_B + _signed((site + 1) * GOLDEN))[:, None]
    counter_Q = torch.arange(1, -(-elements // 4) + 1, device=keys_B.device) * _signed(GOLDEN)
    bits_BE = _mix(start_B1 + counter_Q).view(torch.int16)[:, :elements]
    return bits_BE >= dropped - LEVELS // 2


def _mix(z: Tensor) -> Tensor:
    """splitmix64's finaliser, on int64, whose products wrap."""
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """To the right, zeros coming in: torch brings the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    number %= _TO_SIGNED
    return number - _TO_SIGNED if number >= _TO_SIGNED // 2 else number
