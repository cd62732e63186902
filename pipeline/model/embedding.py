"""What enters the first layer: tokens, positions and token types.

    summed          E_t + P_i + T, each a learned vector of degree 1: BERT's and the paper's.
    row-normalised  sqrt(D)·(E_t/||E_t|| + β·P_i/||P_i|| + β·T/||T||), of degree 0, and so is each row of each table by itself.

`mask_embedding = "zero"`: a [MASK] enters as zeros (with its position and type, where those are added): the encoder is told
what it does not know by nothing at all, and no vector that is the same at every masked place has to be unlearned.

Shapes: B batch, L sequence, D width.
"""

from torch import Tensor, nn

from pipeline.config.schema import ModelConfig
from pipeline.model.homogeneity import Row, module_rows
from pipeline.model.normalise import row_norms
from preprocessing.corpus.reader import MASK_ID

TOKEN_TYPES = 2


class Embedding(nn.Module):
    """Token ids [B, L] to vectors [B, L, D]; positions are added here only where they are learned."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.normalised, self.zero_mask = config.embedding == "row-normalised", config.mask_embedding == "zero"
        self.position_scale = config.position_scale if self.normalised else 1.0
        self.token = nn.Embedding(vocab_size, config.width)
        self.position = nn.Embedding(config.max_seq_len, config.width) if config.positions == "learned" else None
        self.token_type = nn.Embedding(TOKEN_TYPES, config.width) if config.token_types else None

    def forward(self, input_ids_BL: Tensor, token_type_ids_BL: Tensor) -> Tensor:
        x_BLD = self._vectors(self.token(input_ids_BL), 1.0)
        if self.zero_mask:
            x_BLD = x_BLD * (input_ids_BL != MASK_ID)[..., None]
        if self.position is not None:
            x_BLD = x_BLD + self.positions(input_ids_BL.shape[1])
        if self.token_type is not None:
            x_BLD = x_BLD + self._vectors(self.token_type(token_type_ids_BL), self.position_scale)
        return x_BLD

    def positions(self, length: int) -> Tensor:
        """What the learned positions add, [L, D]."""
        assert self.position is not None
        return self._vectors(self.position.weight[:length], self.position_scale)

    def _vectors(self, rows: Tensor, scale: float) -> Tensor:
        """As they are, or each of length scale·sqrt(D)."""
        if not self.normalised:
            return rows
        factor = scale * rows.shape[-1] ** 0.5 / row_norms(rows)
        return (rows * factor[..., None]).to(rows.dtype)

    def degrees(self, name: str, degree: int) -> list[Row]:
        """Of the tables and of their sum; ids have degree 0."""
        rows = [row for part, table in self.named_children() for row in module_rows(f"{name}.{part}", table, degree)]
        unequal = f"{name} sums unequal degrees" if {row.degree_out for row in rows} != {1} else None
        if not self.normalised:
            return [*rows, Row(name, "sum", 1, 1, unequal)]
        return [*rows, Row(name, "sum of rows, each divided by its length", 1, 0, unequal)]
