"""What tests of models have in common."""

import torch

from pipeline.model.pretraining import PretrainingModel


@torch.no_grad()
def with_biases(model: PretrainingModel) -> PretrainingModel:
    """The float64 model, its biases off zero: they have a degree, too."""
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model
