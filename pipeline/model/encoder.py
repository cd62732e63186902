"""One transformer encoder, three wirings.

    sibert-a   the paper's: (E + P) W lifts the embeddings from degree 1 to the stream's degree 2;
               stream += branch(LN(stream)); both branches have degree 2.
    sibert-d   degree-0 stream: stream = LN(E + P); stream += α·LN(branch(LN(stream))). Every matrix is its own scale
               invariant group, so each finds its own equilibrium norm. Row-normalised embeddings are of degree 0 already
               and enter as they are.
    bert       the baseline: PostNorm, GeLU, softmax, affine LayerNorm, biases everywhere (Devlin et al. 2019). With
               model.init = "admin" a trained ω stands on every shortcut, LN(ω⊙x + branch(x)): `shortcut.py`.

The SIBERT wirings end in LN without affine: their output has degree 0 in the parameters, f(c·x) = f(x) for c > 0. sibert-d,
whose stream has that degree throughout, may leave it out (`final_norm`): the head then sees the embedding of a visible token
at its full length, and of row-normalised embeddings the learned positions are taken away again. Biases stand on degree-1 edges
only (Q, K, V and FFN-in); the two output projections have none (paper section 3, table of degrees). The paper does not say
whether dropout is used; in pretraining none is here. Fine-tuning's (`dropout.py`) is of the embeddings' sum and of what each
branch adds to the stream, not of attention weights; its degrees are (x; x).

Shapes: B batch, L sequence, D width, H heads, F feed-forward width.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pipeline.config.schema import ModelConfig, RunConfig
from pipeline.model.attention import attention_of
from pipeline.model.dropout import Dropout
from pipeline.model.embedding import Embedding
from pipeline.model.homogeneity import Row, function_row, module_rows
from pipeline.model.normalise import layer_norm, layer_norm_row
from pipeline.model.positions import rotate, rotation
from pipeline.model.shortcut import Shortcut

Rotation = tuple[Tensor, Tensor] | None  # cos and sin of rotary positions
BERT_LAYER_NORM_EPS = 1e-12


class Attention(nn.Module):
    """Multi-head attention with its output projection; [B, L, D] -> [B, L, D]."""

    def __init__(self, width: int, heads: int, attend: Callable[..., Tensor], rotary: bool, output_bias: bool) -> None:
        super().__init__()
        self.heads, self.attend = heads, attend
        self.rotate = rotate if rotary else None
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width, bias=output_bias)

    def forward(self, x_BLD: Tensor, mask_BL: Tensor | None, angles: Rotation = None) -> Tensor:
        def split(y_BLD: Tensor) -> Tensor:
            return y_BLD.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        q, k, v = split(self.query(x_BLD)), split(self.key(x_BLD)), split(self.value(x_BLD))
        if self.rotate is not None:
            assert angles is not None
            q, k = self.rotate(q, *angles), self.rotate(k, *angles)
        mixed_BHLK = self.attend(q, k, v, mask_BL)
        return self.output(mixed_BHLK.transpose(1, 2).flatten(2))

    def degrees(self, name: str, degree: int) -> list[Row]:
        """Scores are products of queries and keys; what is mixed has the values' degree."""
        parts = [module_rows(f"{name}.{part}", getattr(self, part), degree) for part in ("query", "key", "value")]
        query, key, value = (part[-1].degree_out for part in parts)
        turned = [] if self.rotate is None else [function_row(f"{name}.rotate", self.rotate, d, d) for d in (query, key)]
        attend = function_row(f"{name}.attend", self.attend, query + key, value)
        return [*(row for part in parts for row in part), *turned, attend, *module_rows(f"{name}.output", self.output, value)]


class FeedForward(nn.Module):
    """Two linears with an activation between; [B, L, D] -> [B, L, D]."""

    def __init__(self, width: int, ffn_width: int, activation: Callable[[Tensor], Tensor], output_bias: bool) -> None:
        super().__init__()
        self.activation = activation
        self.inner = nn.Linear(width, ffn_width)
        self.output = nn.Linear(ffn_width, width, bias=output_bias)

    def forward(self, x_BLD: Tensor, mask_BL: Tensor | None, angles: Rotation = None) -> Tensor:
        return self.output(self.activation(self.inner(x_BLD)))

    def degrees(self, name: str, degree: int) -> list[Row]:
        """Of the two linears and what is between them."""
        rows = module_rows(f"{name}.inner", self.inner, degree)
        inner = rows[-1].degree_out
        activation = function_row(f"{name}.activation", self.activation, inner, inner)
        return [*rows, activation, *module_rows(f"{name}.output", self.output, inner)]


class Layer(nn.Module):
    """One encoder layer: attention, then feed-forward, each joined to the stream as the wiring says."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kind = config.encoder
        invariant = config.encoder != "bert"
        activation = torch.relu if invariant else functional.gelu
        rotary = config.positions == "rotary"
        self.attention = Attention(config.width, config.heads, attention_of(config), rotary, output_bias=not invariant)
        self.ffn = FeedForward(config.width, config.ffn_width, activation, output_bias=not invariant)
        join_d = partial(_join_d, scale=config.branch_scale)
        joins: dict[str, Callable[..., Tensor]] = {"sibert-a": _join_a, "sibert-d": join_d, "bert": _join_bert}
        self.join = joins[config.encoder]
        if not invariant:
            self.attention_norm = nn.LayerNorm(config.width, eps=BERT_LAYER_NORM_EPS)
            self.ffn_norm = nn.LayerNorm(config.width, eps=BERT_LAYER_NORM_EPS)
        if config.init == "admin":
            self.attention_shortcut, self.ffn_shortcut = Shortcut(config.width), Shortcut(config.width)
        self.attention_dropout, self.ffn_dropout = Dropout(config.dropout), Dropout(config.dropout)

    def forward(self, x_BLD: Tensor, mask_BL: Tensor | None, angles: Rotation = None, keys_B: Tensor | None = None) -> Tensor:
        for name, branch in (("attention", self.attention), ("ffn", self.ffn)):
            of_stream = partial(branch, mask_BL=mask_BL, angles=angles)
            drop = partial(getattr(self, f"{name}_dropout"), keys_B=keys_B)
            norm, shortcut = (getattr(self, f"{name}_{part}", None) for part in ("norm", "shortcut"))
            x_BLD = self.join(x_BLD, of_stream, norm, drop, shortcut)
        return x_BLD

    def degrees(self, name: str, degree: int) -> list[Row]:
        """On a stream of degree `degree`: both branches, and what the wiring does before and after each."""
        rows: list[Row] = []
        for part, branch in (("attention", self.attention), ("ffn", self.ffn)):
            if self.kind != "bert":
                rows.append(layer_norm_row(f"{name}.join", degree, f" before {part}"))
            rows += module_rows(f"{name}.{part}", branch, degree if self.kind == "bert" else 0)
            if self.kind == "sibert-d":
                rows.append(layer_norm_row(f"{name}.join", rows[-1].degree_out, f" after {part}"))
            joins = rows[-1].degree_out
            if hasattr(self, f"{part}_shortcut"):
                rows += module_rows(f"{name}.{part}_shortcut", getattr(self, f"{part}_shortcut"), degree)
                degree = rows[-1].degree_out
            wrong = f"{name}.{part} joins with degree {joins} a stream of degree {degree}" if joins != degree else None
            rows.append(Row(f"{name}.join", f"stream + {part}", joins, degree, wrong))
            if self.kind == "bert":
                rows += module_rows(f"{name}.{part}_norm", getattr(self, f"{part}_norm"), degree)
                degree = rows[-1].degree_out
        return rows


Map = Callable[[Tensor], Tensor]  # [B, L, D] -> [B, L, D]


def _join_a(x_BLD: Tensor, branch: Map, norm: nn.Module | None, drop: Map, shortcut: nn.Module | None) -> Tensor:
    return x_BLD + drop(branch(layer_norm(x_BLD)))


def _join_d(x_BLD: Tensor, branch: Map, norm: nn.Module | None, drop: Map, shortcut: nn.Module | None, scale: float) -> Tensor:
    return x_BLD.add(drop(layer_norm(branch(layer_norm(x_BLD)))), alpha=scale)


def _join_bert(x_BLD: Tensor, branch: Map, norm: nn.Module | None, drop: Map, shortcut: nn.Module | None) -> Tensor:
    """With a shortcut the branch comes first, so that autograd adds the stream's gradients in the order that it has without."""
    assert norm is not None
    if shortcut is None:
        return norm(x_BLD + drop(branch(x_BLD)))
    joining_BLD = drop(branch(x_BLD))
    return norm(shortcut(x_BLD) + joining_BLD)


class Encoder(nn.Module):
    """Token ids to hidden states of width D.

    forward(input_ids [B, L], token_type_ids [B, L], attention_mask [B, L] of 0/1 or None, keys of dropout [B] or None)
    -> [B, L, D]. With
    `activation_checkpointing` only the stream between layers is kept for the backward pass, which computes each layer again.
    """

    activation_checkpointing = False

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.kind, self.final_norm = config.encoder, config.encoder != "bert" and config.final_norm
        self.rotary_width = config.width // config.heads if config.positions == "rotary" else None
        self.embedding = Embedding(config, vocab_size)
        if self.kind == "sibert-a":
            self.lift = nn.Linear(config.width, config.width, bias=False)
        if self.kind == "bert":
            self.embedding_norm = nn.LayerNorm(config.width, eps=BERT_LAYER_NORM_EPS)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.dropout = Dropout(config.dropout)

    def use_mechanics(self, config: RunConfig) -> None:
        """A run's settings that change how things are computed, not what: activation checkpointing, the attention's kernel."""
        self.activation_checkpointing = config.train.activation_checkpointing
        for layer in self.layers:
            assert isinstance(layer, Layer)
            layer.attention.attend = attention_of(config.model, config.train.attention_kernel)

    def forward(
        self, input_ids_BL: Tensor, token_type_ids_BL: Tensor, mask_BL: Tensor | None, keys_B: Tensor | None = None
    ) -> Tensor:
        x_BLD = self.dropout(self._stream(self.embedding(input_ids_BL, token_type_ids_BL)), keys_B)
        angles = None
        if self.rotary_width is not None:
            kind = torch.promote_types(x_BLD.dtype, torch.float32)
            angles = rotation(x_BLD.shape[1], self.rotary_width, x_BLD.device, kind)
        for layer in self.layers:
            if self.activation_checkpointing and torch.is_grad_enabled():  # nothing here draws random numbers
                x_BLD = checkpoint(layer, x_BLD, mask_BL, angles, keys_B, use_reentrant=False, preserve_rng_state=False)
            else:
                x_BLD = layer(x_BLD, mask_BL, angles, keys_B)
        if self.final_norm:
            return layer_norm(x_BLD)
        if self.embedding.normalised and self.embedding.position is not None:
            return x_BLD - self.embedding.positions(x_BLD.shape[1])
        return x_BLD

    def _stream(self, x_BLD: Tensor) -> Tensor:
        """What the first layer gets from the embeddings."""
        if self.kind == "sibert-a":
            return self.lift(x_BLD)
        if self.kind == "bert":
            return self.embedding_norm(x_BLD)
        return x_BLD if self.embedding.normalised else layer_norm(x_BLD)

    def degrees(self, name: str, degree: int = 0) -> list[Row]:
        """Of every operation, in the order of the forward pass. After a problem the walk goes on with the degree that the
        operation would have without it."""
        rows = module_rows(f"{name}.embedding", self.embedding, degree)
        if self.kind == "sibert-a":
            rows += module_rows(f"{name}.lift", self.lift, rows[-1].degree_out)
        elif self.kind == "bert":
            rows += module_rows(f"{name}.embedding_norm", self.embedding_norm, rows[-1].degree_out)
        elif not self.embedding.normalised:
            rows.append(layer_norm_row(f"{name}.stream", rows[-1].degree_out))
        for i, layer in enumerate(self.layers):
            rows += module_rows(f"{name}.layers.{i}", layer, rows[-1].degree_out)
        end = rows[-1].degree_out
        if self.final_norm:
            return [*rows, layer_norm_row(name, end)]
        return [*rows, Row(name, "output", end, end, None if end == 0 else f"{name} ends at degree {end}, not 0")]
