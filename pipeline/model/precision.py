"""Arithmetic that bf16 is too coarse for."""

import torch
from torch import Tensor


def at_least_fp32(tensor: Tensor) -> Tensor:
    """The tensor in fp32 at least (float64 stays): for sums, logits and losses, of which bf16 would keep 8 bits."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
