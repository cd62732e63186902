"""The pretraining heads: masked tokens (MLM) and next sentence (NSP).

    paper      BERT's transform (dense, GeLU, LayerNorm) and an untied decoder; not scale invariant, trained by LAMB and
               dropped downstream (paper section 3.3).
    invariant  logits τ·<h, w_v/||w_v||> with h the encoder's normalised output: bounded by τ·sqrt(D), scale invariant in
               the decoder too, so the whole model trains by SGD and keeps no optimiser state at all.
    tied       The decoder is the token embedding. BERT's own has the transform before it. SIBERT's is row-normalised, in the
               head as in the embedding, so it is the invariant head without a matrix of its own.

Logits are computed at the masked positions alone. Shapes: N predictions, V vocabulary, D width, B batch.

Degrees: an invariant decoder raises the degree by one and its row norms lower it again. Of the other heads nothing is in x but
the weight of a tied decoder.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config.schema import ModelConfig
from pipeline.model.encoder import BERT_LAYER_NORM_EPS
from pipeline.model.homogeneity import Row
from pipeline.model.normalise import row_normalised_logits, row_norms
from pipeline.model.token_loss import decoded, token_loss


class Transform(nn.Module):
    """dense -> GeLU -> LayerNorm, [N, D] -> [N, D]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=BERT_LAYER_NORM_EPS)

    def forward(self, h_ND: Tensor) -> Tensor:
        return self.norm(functional.gelu(self.dense(h_ND)))


class MaskedTokenHead(nn.Module):
    """Hidden states at the masked positions to logits over the vocabulary, [N, D] -> [N, V]; given the labels, to the loss of
    each, [N], which needs no room for all logits (`token_loss`).

    `log_unigram_V`: where the decoder's bias starts (with the transform) or stays (row-normalised); None for zeros.
    """

    bias_bits: Tensor

    def __init__(self, config: ModelConfig, vocab_size: int, log_unigram_V: Tensor | None) -> None:
        super().__init__()
        self.row_normalised, self.tau = config.decoder_is_row_normalised, config.tau
        bias_V = torch.zeros(vocab_size) if log_unigram_V is None else log_unigram_V.detach().clone()
        if not self.row_normalised:
            self.transform = Transform(config.width)
            self.bias = nn.Parameter(bias_V)
        else:
            # As integers: model.bfloat16() would round a buffer of floats to 8 bits, log frequencies by up to 0.03 nats.
            self.register_buffer("bias_bits", bias_V.float().view(torch.int32), persistent=False)
        self.decoder = None if config.head == "tied" else nn.Linear(config.width, vocab_size, bias=False)

    def forward(self, h_ND: Tensor, token_embedding_VD: Tensor, labels_N: Tensor | None = None) -> Tensor:
        weight_VD = token_embedding_VD if self.decoder is None else self.decoder.weight
        if self.row_normalised:
            scale_V, bias_V = self.tau / row_norms(weight_VD), self.bias_bits.view(torch.float32)
        else:
            h_ND, scale_V, bias_V = self.transform(h_ND), None, self.bias
        if labels_N is None:
            return decoded(h_ND, weight_VD, scale_V, bias_V)
        return token_loss(h_ND, weight_VD, scale_V, bias_V, labels_N)

    def degrees(self, name: str, degree: int) -> list[Row]:
        """Of the logits, from hidden states of degree `degree`."""
        if self.row_normalised:
            return [_row_normalised(name if self.decoder is None else f"{name}.decoder", degree)]
        if self.decoder is None:
            wrong = f"{name} decodes by encoder.embedding.token.weight: logits of degree {degree + 1}"
            return [Row(name, "tied decoder", degree, degree + 1, wrong)]
        return [_not_in_x(name, degree)]


class NextSentenceHead(nn.Module):
    """The [CLS] state to two logits (0: B follows A, 1: it does not); [B, D] -> [B, 2]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.invariant, self.tau = config.decoder_is_row_normalised, config.tau
        if not self.invariant:
            self.pooler = nn.Linear(config.width, config.width)
        self.classifier = nn.Linear(config.width, 2, bias=not self.invariant)

    def forward(self, cls_BD: Tensor) -> Tensor:
        if self.invariant:
            return row_normalised_logits(cls_BD, self.classifier.weight, self.tau)
        return self.classifier(torch.tanh(self.pooler(cls_BD)))

    def degrees(self, name: str, degree: int) -> list[Row]:
        """Of the logits, from a [CLS] state of degree `degree`."""
        return [_row_normalised(f"{name}.classifier", degree) if self.invariant else _not_in_x(name, degree)]


def _row_normalised(name: str, degree: int) -> Row:
    return Row(name, "row-normalised decoder <h, w/||w||>", degree, degree)


def _not_in_x(name: str, degree: int) -> Row:
    return Row(name, "not scale invariant, LAMB's: its parameters are not in x", degree, degree)
