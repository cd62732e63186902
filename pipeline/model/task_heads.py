"""The heads of fine-tuning, new for each task: those of pretraining are dropped (paper section 3.3).

    linear     BERT's: for classes a dense layer with tanh on the [CLS] state, dropout and a linear; for spans one linear to two
               logits a token. Not scale invariant.
    invariant  logits τ·<h, w/||w||> as in pretraining (`heads.py`): the whole model is scale invariant, and all of it can be
               trained by SGD with relative clipping.

Shapes: B sequences, L tokens, D width, C classes.
"""

import torch
from torch import Tensor, nn

from pipeline.config.schema import ModelConfig
from pipeline.model.dropout import Dropout
from pipeline.model.normalise import row_normalised_logits
from pipeline.model.precision import at_least_fp32


class RowNormalised(nn.Module):
    """[…, D] -> […, C] by cosines with the rows of a matrix, times τ·||h||; of h's degree."""

    def __init__(self, width: int, outputs: int, tau: float) -> None:
        super().__init__()
        self.tau = tau
        self.rows = nn.Linear(width, outputs, bias=False)

    def forward(self, h_D: Tensor) -> Tensor:
        return row_normalised_logits(h_D, self.rows.weight, self.tau)


class ClassHead(nn.Module):
    """Hidden states [B, L, D] to logits of C classes, [B, C], from the first token's."""

    def __init__(self, config: ModelConfig, classes: int, invariant: bool) -> None:
        super().__init__()
        self.dropout = Dropout(config.dropout)
        self.pooler = None if invariant else nn.Linear(config.width, config.width)
        self.output = RowNormalised(config.width, classes, config.tau) if invariant else nn.Linear(config.width, classes)

    def forward(self, hidden_BLD: Tensor, keys_B: Tensor | None) -> Tensor:
        cls_BD = hidden_BLD[:, 0]
        if self.pooler is not None:
            cls_BD = torch.tanh(self.pooler(cls_BD))
        return at_least_fp32(self.output(self.dropout(cls_BD, keys_B)))


class SpanHead(nn.Module):
    """Hidden states [B, L, D] to logits [B, 2, L]: is the token an answer's first, its last?"""

    def __init__(self, config: ModelConfig, invariant: bool) -> None:
        super().__init__()
        self.output = RowNormalised(config.width, 2, config.tau) if invariant else nn.Linear(config.width, 2)

    def forward(self, hidden_BLD: Tensor, keys_B: Tensor | None) -> Tensor:
        return at_least_fp32(self.output(hidden_BLD)).transpose(1, 2)
