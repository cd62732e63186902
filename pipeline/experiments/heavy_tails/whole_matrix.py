"""The recipe without row normalisation: the tied embedding divided by the length of the whole matrix instead of each row's.

It is as scale invariant as the recipe's, and trained by the same SGD without state; but a row's own length counts, and every
row has the same learning rate, whatever its frequency.

Shapes: N predictions, V vocabulary, D width.
"""

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.config.schema import ModelConfig
from pipeline.model.embedding import Embedding
from pipeline.model.heads import MaskedTokenHead
from pipeline.model.precision import at_least_fp32
from pipeline.model.pretraining import PretrainingModel


def _unit_rows(weight_VD: Tensor) -> Tensor:
    """What to multiply the matrix by for rows of length 1 in the mean square."""
    return len(weight_VD) ** 0.5 / torch.linalg.vector_norm(weight_VD)


class WholeMatrixEmbedding(Embedding):
    """Vectors of length sqrt(D) in the mean square over the vocabulary; for rotary positions and no token types."""

    def _vectors(self, rows: Tensor, scale: float) -> Tensor:
        return rows * (scale * rows.shape[-1] ** 0.5 * _unit_rows(self.token.weight))


class WholeMatrixHead(MaskedTokenHead):
    """Logits τ·sqrt(V)·<h, w_v>/||W|| + log p_v; given the labels, the loss of each prediction."""

    def forward(self, h_ND: Tensor, token_embedding_VD: Tensor, labels_N: Tensor | None = None) -> Tensor:
        scale = self.tau * _unit_rows(token_embedding_VD)
        logits_NV = self.bias_bits.view(torch.float32) + scale * at_least_fp32(h_ND @ token_embedding_VD.t())
        return logits_NV if labels_N is None else functional.cross_entropy(logits_NV, labels_N, reduction="none")


def without_row_normalisation(config: ModelConfig, model: PretrainingModel) -> None:
    """Put both into a model that is not initialised yet."""
    assert (config.head, config.positions, config.token_types) == ("tied", "rotary", False)
    vocab_size, bias_bits = len(model.encoder.embedding.token.weight), model.mlm_head.bias_bits
    model.encoder.embedding = WholeMatrixEmbedding(config, vocab_size)
    model.mlm_head = WholeMatrixHead(config, vocab_size, None)
    model.mlm_head.bias_bits = bias_bits
