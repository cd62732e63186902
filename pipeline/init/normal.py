"""BERT's truncated normal initialisation, and where scale invariant models depart from it."""

import torch
from torch import nn

from pipeline.config.schema import ModelConfig
from pipeline.model.embedding import Embedding
from pipeline.model.encoder import Attention


def init_weights(model: nn.Module, config: ModelConfig, seed: int) -> None:
    """The weights of a recipe from its seed, in place and on the CPU; a balanced start is `balance`d after this."""
    truncated_normal(model, config.init_std, seed, quiet_token_types=config.encoder != "bert")
    offset_scores(model, config.score_offset, config.init_std)


@torch.no_grad()
def truncated_normal(model: nn.Module, std: float, seed: int, quiet_token_types: bool) -> None:
    """Every matrix from a normal of standard deviation `std` cut at two of them (paper section 5: 0.02, as in BERT);
    linear biases zero, LayerNorm 1 and 0. The MLM output bias keeps its log-unigram start.

    `quiet_token_types` (scale invariant encoders) starts the token type embeddings at zero, where they have no fixed length.
    From N(0, 0.02²) they are one vector that all tokens share, a third of the embeddings' variance: in the heads in which that
    vector's own score is negative, ReLU left up to a fifth of the attention rows empty or nearly so (measured), and the
    gradients through nearly empty rows are what is ill-conditioned in this architecture.
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
        if isinstance(module, Embedding) and quiet_token_types and module.token_type is not None and not module.normalised:
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
