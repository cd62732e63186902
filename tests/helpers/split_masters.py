"""fp32 numbers split as the optimiser splits its masters: for tests that compare both."""

import torch
from torch import Tensor

from pipeline.optim.fp32_vector import Fp32Vector


def split(values: Tensor) -> Fp32Vector:
    """Of 1-D fp32 values."""
    vector = Fp32Vector(torch.empty(values.shape, dtype=torch.bfloat16), torch.empty(values.shape, dtype=torch.int16))
    vector.store(values)
    return vector
