"""The model that is pretrained: an encoder and its heads, and the loss.

Shapes: B batch, L sequence, P predictions a sequence, N = B·P, V vocabulary, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config.schema import ModelConfig
from pipeline.data.batch import Batch
from pipeline.model.encoder import Encoder
from pipeline.model.heads import MaskedTokenHead, NextSentenceHead
from pipeline.model.precision import at_least_fp32


class PretrainingLoss(NamedTuple):
    """`loss` is what is differentiated; the sums (detached) are what is reported.

    A tuple, because DeepSpeed looks for what will be differentiated in tuples and not in dataclasses: it would not notice
    the start of the backward pass, and with offloading it lost the gradients of all micro batches but the first.

    `loss` = sum of weighted token losses / (B·P) + mean NSP loss. The divisor is the number of prediction slots, filled or
    not, so that every rank's micro batch weighs the same and the mean over ranks is the global batch's loss.
    """

    loss: Tensor
    token_loss_N: Tensor  # float32, detached
    nsp_correct_B: Tensor | None  # bool


class PretrainingModel(nn.Module):
    """Encoder + MLM head (+ NSP head). `scale_invariant_names` says which parameters x of f(cx) = f(x) are."""

    def __init__(self, config: ModelConfig, vocab_size: int, nsp: bool, log_unigram_V: Tensor | None = None) -> None:
        super().__init__()
        self.encoder = Encoder(config, vocab_size)
        self.mlm_head = MaskedTokenHead(config, vocab_size, log_unigram_V if config.unigram_bias else None)
        self.nsp_head = NextSentenceHead(config) if nsp else None
        self.head_is_invariant = config.decoder_is_row_normalised
        self.encoder_is_invariant = config.encoder != "bert"

    def scale_invariant_names(self) -> set[str]:
        """Names of the scale invariant parameters: the encoder's, and the head's if its decoder is row-normalised."""
        if not self.encoder_is_invariant:
            return set()
        parts = ("encoder.", "mlm_head.", "nsp_head.") if self.head_is_invariant else ("encoder.",)
        return {name for name, _ in self.named_parameters() if name.startswith(parts)}

    def forward(self, batch: Batch) -> PretrainingLoss:
        """Loss of one micro batch. ValueError if there is an NSP head and the batch has no NSP labels."""
        hidden_BLD, h_ND = self._hidden(batch)
        token_loss_N = self.mlm_head(h_ND, self.encoder.embedding.token.weight, batch.labels.flatten())
        token_loss_N = token_loss_N * batch.weights.flatten()
        loss, nsp_correct_B = token_loss_N.mean(), None
        if self.nsp_head is not None:
            if batch.nsp_labels is None:
                raise ValueError("this model has a next-sentence head: the batch needs nsp_labels (objective mlm+nsp)")
            nsp_logits_B2 = at_least_fp32(self.nsp_head(hidden_BLD[:, 0]))
            loss = loss + functional.cross_entropy(nsp_logits_B2, batch.nsp_labels)
            nsp_correct_B = nsp_logits_B2.detach().argmax(-1) == batch.nsp_labels
        return PretrainingLoss(loss, token_loss_N.detach(), nsp_correct_B)

    def token_logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(hidden_BLD, logits_NV): the encoder's output, and what the MLM head makes of it at the batch's positions."""
        hidden_BLD, h_ND = self._hidden(batch)
        return hidden_BLD, self.mlm_head(h_ND, self.encoder.embedding.token.weight)

    def _hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(hidden_BLD, h_ND): the encoder's output, and of it the positions that are predicted."""
        hidden_BLD = self.encoder(batch.input_ids, batch.token_type_ids, batch.attention_mask)
        index_BPD = batch.positions[..., None].expand(-1, -1, hidden_BLD.shape[-1])
        return hidden_BLD, hidden_BLD.gather(1, index_BPD).flatten(0, 1)


def parameter_count(model: nn.Module) -> int:
    """Number of trainable scalars."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def parameter_shapes(model: nn.Module) -> dict[str, list[int]]:
    """The shape of every parameter, by name."""
    return {name: list(p.shape) for name, p in model.named_parameters()}


def on_device(model: nn.Module) -> torch.device:
    """The device of the model's parameters."""
    return next(model.parameters()).device
