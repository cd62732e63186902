"""SIBERT, a scale invariant BERT, for Hugging Face's transformers. This file needs torch and transformers alone.

    sibert-a   (E + P) W, then stream += branch(LN(stream))
    sibert-d   stream = LN(E + P), then stream += α·LN(branch(LN(stream)))
    bert       BERT with rotary positions (BERT with learned ones is transformers' own BertModel)

The branches of the SIBERT wirings are attention with weights ReLU(Q Kᵀ)^n over their row sum, and a ReLU feed-forward net. LN
has neither affine parameters nor eps, so that scaling the encoder's weights by c > 0 changes nothing: f(c·x) = f(x).

Shapes: B batch, L sequence, D width, H heads, K width of a head, V vocabulary, C classes.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import (
    BaseModelOutput,
    MaskedLMOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
)

ROTARY_BASE = 10_000.0


class SibertConfig(PretrainedConfig):
    """Shape and wiring. The names of the shape are transformers' own."""

    model_type = "sibert"

    def __init__(
        self,
        vocab_size: int = 30_522,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        max_position_embeddings: int = 512,
        wiring: str = "sibert-a",  # sibert-a, sibert-d, bert: see above
        head: str = "paper",  # of masked tokens. paper: transform and decoder; invariant: row-normalised; tied: the embedding
        embedding: str = "summed",  # or row-normalised: each vector divided by its length
        positions: str = "learned",  # or rotary
        position_scale: float = 0.3,  # of row-normalised embeddings: a position's length beside a token's
        token_types: bool = True,  # is there an embedding of the sequence, A or B?
        mask_embedding: str = "learned",  # or zero: [MASK] enters as zeros
        branch_scale: float = 1.0,  # α of sibert-d
        attention_power: int = 1,  # n of the attention weights
        final_norm: bool = True,  # LN after the last layer
        tau: float = 1.0,  # of a row-normalised decoder: logits are τ·<h, w/||w||>
        task_head: str = "linear",  # of classes and spans; or invariant: row-normalised
        hidden_dropout_prob: float = 0.1,  # in training, of the embeddings and of what each branch adds
        initializer_range: float = 0.02,  # of heads that are not in the checkpoint
        layer_norm_eps: float = 1e-12,  # of bert, and of the paper's head
        pad_token_id: int = 0,
        mask_token_id: int = 4,
        **others: Any,
    ) -> None:
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        self.num_attention_heads, self.intermediate_size = num_attention_heads, intermediate_size
        self.max_position_embeddings = max_position_embeddings
        self.wiring, self.head, self.embedding, self.positions = wiring, head, embedding, positions
        self.position_scale, self.token_types, self.mask_embedding = position_scale, token_types, mask_embedding
        self.branch_scale, self.attention_power, self.final_norm, self.tau = branch_scale, attention_power, final_norm, tau
        self.task_head, self.initializer_range = task_head, initializer_range
        self.hidden_dropout_prob = hidden_dropout_prob
        self.layer_norm_eps, self.mask_token_id = layer_norm_eps, mask_token_id
        # A tied head reads the embedding itself: transformers has nothing to tie.
        super().__init__(pad_token_id=pad_token_id, **{**others, "tie_word_embeddings": False})

    @property
    def row_normalised_decoder(self) -> bool:
        """Are the logits τ·<h, w/||w||>?"""
        return self.head == "invariant" or (self.head == "tied" and self.embedding == "row-normalised")


def layer_norm(x_BLD: Tensor) -> Tensor:
    """LayerNorm without affine and without eps; constant rows become zeros with zero gradients."""
    tiny = torch.finfo(x_BLD.dtype).tiny
    y_BLD, _, inverse_BL1 = torch.native_layer_norm(x_BLD, x_BLD.shape[-1:], None, None, tiny)
    return y_BLD.masked_fill(inverse_BL1 >= 0.5 * tiny**-0.5, 0.0)


def row_norms(weight: Tensor) -> Tensor:
    """The length of each row, in fp32 at least; 1 for a row of zeros."""
    at_least = torch.promote_types(weight.dtype, torch.float32)
    norms = torch.linalg.vector_norm(weight, dim=-1, dtype=at_least)
    return torch.where(norms > 0, norms, 1.0)


def at_least_fp32(tensor: Tensor) -> Tensor:
    """For logits: bf16 would keep 8 bits of them."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def rotation(length: int, head_width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of position·BASE^(-2i/K) for each pair i, [L, K/2]; in float64, where far angles are exact."""
    pair = torch.arange(0, head_width, 2, device=like.device, dtype=torch.float64)
    position = torch.arange(length, device=like.device, dtype=torch.float64)
    angle = position[:, None] * ROTARY_BASE ** (-pair / head_width)
    kind = torch.promote_types(like.dtype, torch.float32)
    return angle.cos().to(kind), angle.sin().to(kind)


def rotate(x_BHLK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each pair (x_i, x_{i + K/2}) turned by its angle."""
    a, b = x_BHLK.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x_BHLK.dtype)


def invariant_attention(q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, mask_BL: Tensor | None, power: int) -> Tensor:
    """N(ReLU(Q Kᵀ)^power) V, N = division of each row by its sum. A row without a score above 0 gives zeros."""
    if mask_BL is not None:
        k_BHLK = k_BHLK * mask_BL[:, None, :, None].to(k_BHLK.dtype)
    if power > 1:  # lengths cancel; without them no power leaves the range of numbers
        longest = torch.linalg.vector_norm(k_BHLK.detach(), dim=-1, keepdim=True).amax(dim=-2, keepdim=True)
        q_BHLK = q_BHLK / row_norms(q_BHLK.detach())[..., None].to(q_BHLK.dtype)
        k_BHLK = k_BHLK / torch.where(longest > 0, longest, 1.0)
    scores = torch.relu(q_BHLK @ k_BHLK.transpose(-1, -2))
    weights = scores
    for _ in range(power - 1):
        weights = weights * scores
    total = weights.sum(dim=-1, keepdim=True)
    return (weights @ v_BHLK) / torch.where(total > 0, total, 1.0)


class Embedding(nn.Module):
    """What enters the first layer: tokens, learned positions, token types."""

    def __init__(self, config: SibertConfig) -> None:
        super().__init__()
        self.normalised = config.embedding == "row-normalised"
        self.scale = config.position_scale if self.normalised else 1.0
        self.zero_id = config.mask_token_id if config.mask_embedding == "zero" else None
        self.token = nn.Embedding(config.vocab_size, config.hidden_size)
        learned = config.positions == "learned"
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size) if learned else None
        self.token_type = nn.Embedding(2, config.hidden_size) if config.token_types else None

    def forward(self, ids_BL: Tensor, types_BL: Tensor | None) -> Tensor:
        x_BLD = self.vectors(self.token(ids_BL), 1.0)
        if self.zero_id is not None:
            x_BLD = x_BLD * (ids_BL != self.zero_id)[..., None]
        if self.position is not None:
            x_BLD = x_BLD + self.vectors(self.position.weight[: ids_BL.shape[1]], self.scale)
        if self.token_type is not None:
            types_BL = torch.zeros_like(ids_BL) if types_BL is None else types_BL
            x_BLD = x_BLD + self.vectors(self.token_type(types_BL), self.scale)
        return x_BLD

    def vectors(self, rows: Tensor, scale: float) -> Tensor:
        """As they are, or each of length scale·sqrt(D)."""
        if not self.normalised:
            return rows
        return (rows * (scale * rows.shape[-1] ** 0.5 / row_norms(rows))[..., None]).to(rows.dtype)


class Attention(nn.Module):
    """Multi-head attention with its output projection."""

    def __init__(self, config: SibertConfig) -> None:
        super().__init__()
        width, self.heads = config.hidden_size, config.num_attention_heads
        self.power = config.attention_power if config.wiring != "bert" else None
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width, bias=config.wiring == "bert")

    def forward(self, x_BLD: Tensor, mask_BL: Tensor | None, angles: tuple[Tensor, Tensor] | None) -> Tensor:
        parts = (self.query, self.key, self.value)
        q, k, v = (part(x_BLD).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        if angles is not None:
            q, k = rotate(q, *angles), rotate(k, *angles)
        if self.power is not None:
            mixed = invariant_attention(q, k, v, mask_BL, self.power)
        else:
            keep = None if mask_BL is None else mask_BL[:, None, None, :].bool()
            mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=keep)
        return self.output(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linears with an activation between."""

    def __init__(self, config: SibertConfig) -> None:
        super().__init__()
        bert = config.wiring == "bert"
        self.activation = functional.gelu if bert else torch.relu
        self.inner = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output = nn.Linear(config.intermediate_size, config.hidden_size, bias=bert)

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.output(self.activation(self.inner(x_BLD)))


class Layer(nn.Module):
    """Attention and feed-forward, each joined to the stream as the wiring says."""

    def __init__(self, config: SibertConfig) -> None:
        super().__init__()
        self.wiring, self.scale = config.wiring, config.branch_scale
        self.attention, self.ffn = Attention(config), FeedForward(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        if self.wiring == "bert":
            self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
            self.ffn_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x_BLD: Tensor, mask_BL: Tensor | None, angles: tuple[Tensor, Tensor] | None) -> Tensor:
        if self.wiring == "bert":
            x_BLD = self.attention_norm(x_BLD + self.dropout(self.attention(x_BLD, mask_BL, angles)))
            return self.ffn_norm(x_BLD + self.dropout(self.ffn(x_BLD)))
        x_BLD = self.joined(x_BLD, self.attention(layer_norm(x_BLD), mask_BL, angles))
        return self.joined(x_BLD, self.ffn(layer_norm(x_BLD)))

    def joined(self, x_BLD: Tensor, branch_BLD: Tensor) -> Tensor:
        """SIBERT's stream with a branch's output."""
        if self.wiring == "sibert-a":
            return x_BLD + self.dropout(branch_BLD)
        return x_BLD.add(self.dropout(layer_norm(branch_BLD)), alpha=self.scale)


class SibertPreTrainedModel(PreTrainedModel):
    """What all models here share."""

    config_class = SibertConfig
    base_model_prefix = "encoder"
    # Losses are means over a batch: Trainer is to divide them by its gradient_accumulation_steps, which it else leaves to us.
    accepts_loss_kwargs = False

    def _init_weights(self, module: nn.Module) -> None:
        """Of what a checkpoint lacks: a new head."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
        if isinstance(module, MaskedTokenHead):
            nn.init.zeros_(module.bias_bits if module.row_normalised else module.bias)
        if getattr(module, "bias", None) is not None and isinstance(module, (nn.Linear, nn.LayerNorm)):
            nn.init.zeros_(module.bias)


class SibertModel(SibertPreTrainedModel):
    """The encoder: ids to hidden states. Its first token's state stands for the sequence; nothing is pooled."""

    def __init__(self, config: SibertConfig) -> None:
        super().__init__(config)
        self.embedding = Embedding(config)
        if config.wiring == "sibert-a":
            self.lift = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        if config.wiring == "bert":
            self.embedding_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding.token

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embedding.token = value

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> BaseModelOutput | tuple[Tensor, ...]:
        """input_ids [B, L]; attention_mask [B, L], 0 on padding, which stands behind the text. ValueError for any other tensor,
        such as BERT's position_ids: to compute without it would be to compute something else."""
        length, config = input_ids.shape[1], self.config
        if unread := [name for name, value in others.items() if isinstance(value, Tensor)]:
            raise ValueError(f"{', '.join(unread)}: not read by this model, whose positions count from 0; leave that out")
        if length > config.max_position_embeddings:
            raise ValueError(f"{length} tokens: expected at most {config.max_position_embeddings}; truncate the text")
        x_BLD = self.stream(self.embedding(input_ids, token_type_ids))
        angles = None
        if config.positions == "rotary":
            angles = rotation(length, config.hidden_size // config.num_attention_heads, x_BLD)
        x_BLD = self.dropout(x_BLD)
        states = [x_BLD]
        for layer in self.layers:
            x_BLD = layer(x_BLD, attention_mask, angles)
            states.append(x_BLD)
        last_BLD = states[-1] = self.finished(x_BLD)
        wanted = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        output = BaseModelOutput(last_hidden_state=last_BLD, hidden_states=tuple(states) if wanted else None)
        return output.to_tuple() if return_dict is False else output

    def stream(self, x_BLD: Tensor) -> Tensor:
        """What the first layer gets from the embeddings."""
        if self.config.wiring == "sibert-a":
            return self.lift(x_BLD)
        if self.config.wiring == "bert":
            return self.embedding_norm(x_BLD)
        return x_BLD if self.embedding.normalised else layer_norm(x_BLD)

    def finished(self, x_BLD: Tensor) -> Tensor:
        """What the head gets from the last layer. Without its norm learned positions of length 1 are taken away again."""
        if self.config.wiring != "bert" and self.config.final_norm:
            return layer_norm(x_BLD)
        if self.embedding.normalised and self.embedding.position is not None:
            return x_BLD - self.embedding.vectors(self.embedding.position.weight[: x_BLD.shape[1]], self.embedding.scale)
        return x_BLD


class Transform(nn.Module):
    """dense -> GeLU -> LayerNorm."""

    def __init__(self, config: SibertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, h: Tensor) -> Tensor:
        return self.norm(functional.gelu(self.dense(h)))


class MaskedTokenHead(nn.Module):
    """Hidden states to logits over the vocabulary."""

    bias_bits: Tensor

    def __init__(self, config: SibertConfig) -> None:
        super().__init__()
        self.row_normalised, self.tau = config.row_normalised_decoder, config.tau
        if self.row_normalised:
            # A fixed bias, the log frequencies of the tokens: float32 kept as integers, which .bfloat16() does not round.
            self.register_buffer("bias_bits", torch.zeros(config.vocab_size, dtype=torch.int32))
        else:
            self.transform = Transform(config)
            self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        tied = config.head == "tied"
        self.decoder = None if tied else nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, h_BLD: Tensor, token_embedding_VD: Tensor) -> Tensor:
        weight_VD = token_embedding_VD if self.decoder is None else self.decoder.weight
        if not self.row_normalised:
            return functional.linear(self.transform(h_BLD), weight_VD, self.bias)
        scale_V = self.tau / row_norms(weight_VD)
        bias_V = self.bias_bits.view(torch.float32).to(scale_V.dtype)
        return torch.addcmul(bias_V, at_least_fp32(h_BLD @ weight_VD.t()), scale_V)


class SibertForMaskedLM(SibertPreTrainedModel):
    """The encoder with the head of its pretraining. (A next-sentence head, nsp_head.*, is not read here.)"""

    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"^nsp_head\."]

    def __init__(self, config: SibertConfig) -> None:
        super().__init__(config)
        self.encoder = SibertModel(config)
        self.mlm_head = MaskedTokenHead(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> MaskedLMOutput | tuple[Tensor, ...]:
        """Logits [B, L, V]; the loss is the mean over the labels that are not -100."""
        out = self.encoder(input_ids, attention_mask, token_type_ids, return_dict=True, **others)
        logits = self.mlm_head(out.last_hidden_state, self.encoder.embedding.token.weight)
        loss = None if labels is None else functional.cross_entropy(at_least_fp32(logits).flatten(0, 1), labels.flatten())
        output = MaskedLMOutput(loss=loss, logits=logits, hidden_states=out.hidden_states)
        return output.to_tuple() if return_dict is False else output


class RowNormalised(nn.Module):
    """Cosines with the rows of a matrix, times τ and the length of the state."""

    def __init__(self, config: SibertConfig, outputs: int) -> None:
        super().__init__()
        self.tau, self.rows = config.tau, nn.Linear(config.hidden_size, outputs, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        return at_least_fp32(h @ self.rows.weight.t()) * (self.tau / row_norms(self.rows.weight))


def task_output(config: SibertConfig, outputs: int) -> nn.Module:
    """The last layer of a task's head."""
    return RowNormalised(config, outputs) if config.task_head == "invariant" else nn.Linear(config.hidden_size, outputs)


class ClassHead(nn.Module):
    """Logits of classes from the first token's state; the linear head has BERT's dense layer with tanh before."""

    def __init__(self, config: SibertConfig) -> None:
        super().__init__()
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if config.task_head == "linear" else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.output = task_output(config, config.num_labels)

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        cls_BD = hidden_BLD[:, 0]
        if self.pooler is not None:
            cls_BD = torch.tanh(self.pooler(cls_BD))
        return self.output(self.dropout(cls_BD))


class SpanHead(nn.Module):
    """Two logits a token: is it an answer's first, its last?"""

    def __init__(self, config: SibertConfig) -> None:
        super().__init__()
        self.output = task_output(config, 2)

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        return self.output(hidden_BLD)


class SibertForTask(SibertPreTrainedModel):
    """The encoder with a task's head; those of pretraining are dropped."""

    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"^nsp_head\.", r"^mlm_head\."]
    head_class: ClassVar[type[nn.Module]]

    def __init__(self, config: SibertConfig) -> None:
        super().__init__(config)
        self.encoder = SibertModel(config)
        self.head = self.head_class(config)
        self.post_init()


class SibertForSequenceClassification(SibertForTask):
    """The encoder with a classifier on the first token's state."""

    head_class = ClassHead

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Logits [B, C]. Labels [B] are classes, or numbers where there is one output or problem_type says regression."""
        out = self.encoder(input_ids, attention_mask, token_type_ids, return_dict=True, **others)
        logits = self.head(out.last_hidden_state)
        loss = None if labels is None else self.loss(at_least_fp32(logits), labels)
        output = SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=out.hidden_states)
        return output.to_tuple() if return_dict is False else output

    def loss(self, logits_BC: Tensor, labels: Tensor) -> Tensor:
        """By config.problem_type, or by what the labels are."""
        kind = self.config.problem_type
        if kind == "regression" or (kind is None and self.config.num_labels == 1):
            return functional.mse_loss(logits_BC.flatten(), labels.flatten().to(logits_BC.dtype))
        if kind == "multi_label_classification" or (kind is None and labels.is_floating_point()):
            return functional.binary_cross_entropy_with_logits(logits_BC, labels.to(logits_BC.dtype))
        return functional.cross_entropy(logits_BC, labels.flatten())


class SibertForQuestionAnswering(SibertForTask):
    """The encoder with two logits a token, for answers that are a part of the text."""

    head_class = SpanHead

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> QuestionAnsweringModelOutput | tuple[Tensor, ...]:
        """Logits [B, L] of starts and of ends; positions beyond the sequence count for nothing."""
        out = self.encoder(input_ids, attention_mask, token_type_ids, return_dict=True, **others)
        start_BL, end_BL = self.head(out.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            length = start_BL.shape[1]
            both = ((start_BL, start_positions), (end_BL, end_positions))
            loss = sum(
                functional.cross_entropy(at_least_fp32(logits), at.flatten().clamp(0, length), ignore_index=length) / 2
                for logits, at in both
            )
        output = QuestionAnsweringModelOutput(
            loss=loss, start_logits=start_BL, end_logits=end_BL, hidden_states=out.hidden_states
        )
        return output.to_tuple() if return_dict is False else output
