"""The configuration of a run: typed, strict, one owner per value.

recipe (TOML) -> `--set section.key=value` -> RunConfig, frozen and validated: a bound stands beside its field, a rule about
several fields in the lowest section that has them all. Nothing here depends on the corpus, the machine or the launcher: those
are checked against it where they meet (`batch_arithmetic`, the corpus manifest).

A rule raises ValueError. That of a field says what is expected of it, for `load.from_dict` puts key and value before it; that
of a section names its keys in full.
"""

import itertools
import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PlainSerializer,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pipeline.config.update_rule import update_problem


def _as_float(value: Any) -> Any:
    """An int is a number, too, if a float can hold it; "inf" is infinity, which strict JSON cannot say otherwise."""
    if value == "inf":
        return math.inf
    return float(value) if type(value) is int and abs(value) < 1e300 else value


def _as_plain(value: float) -> float | str:
    return "inf" if math.isinf(value) else value


PositiveNumber = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_as_float)]
NonNegativeNumber = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_as_float)]
PositiveOrInfinite = Annotated[float, Field(gt=0), BeforeValidator(_as_float), PlainSerializer(_as_plain)]
Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False), BeforeValidator(_as_float)]
LEAST_TIMEOUT_S = 1.0  # below it a machine that is merely busy looks lost
Betas = Annotated[tuple[Fraction, Fraction], Field(strict=False)]  # not strict: TOML and JSON have lists


class Section(BaseModel):
    """A part of the configuration. Made from the types named here and no others, and never changed (`load.changed` copies)."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class GradInitConfig(Section):
    """The search of model.init = "gradinit" (pipeline/init/gradinit.py). The numbers are those published for a Post-LN
    transformer (Zhu et al. 2021, IWSLT): there are none for BERT."""

    iterations: PositiveInt = 780  # of the search
    eta: NonNegativeNumber = 0.0  # η, the optimiser's step whose loss is made small; 0: optim.lr, the schedule's peak
    # γ, the most that the gradient's norm may be; 0: as published, 1000 of the l1 norm (adamw), 1 of the l2 norm (sgd). A
    # model of another size has another norm: the search logs it, and how often it exceeded the bound, which should be seldom
    gamma: NonNegativeNumber = 0.0
    lr: PositiveNumber = 2.5e-3  # of Adam on the multipliers
    betas: Betas = (0.9, 0.98)  # of the same
    least: PositiveNumber = 0.01  # no multiplier goes below


class ModelConfig(Section):
    """Shape and wiring. The vocabulary's size is the corpus's."""

    encoder: Literal["sibert-a", "sibert-d", "bert"] = "sibert-a"  # the wiring: pipeline/model/encoder.py says what each is
    head: Literal["paper", "invariant", "tied"] = "paper"  # what turns states into logits: pipeline/model/heads.py
    layers: PositiveInt = 12  # how many the encoder has
    width: PositiveInt = 768  # of a hidden state
    heads: PositiveInt = 12  # of attention in each layer; they share the width evenly
    ffn_width: PositiveInt = 3072  # inside the feed-forward part of a layer
    max_seq_len: PositiveInt = 512  # how many positions have an embedding; with rotary positions the longest sequence
    embedding: Literal["summed", "row-normalised"] = "summed"  # what enters the first layer: pipeline/model/embedding.py
    positions: Literal["learned", "rotary"] = "learned"  # vectors that are added, or rotations of queries and keys
    position_scale: PositiveNumber = 0.3  # β of row-normalised embeddings: a position's length beside a token's
    token_types: bool = True  # add an embedding of the sequence, A or B, that a token belongs to
    mask_embedding: Literal["learned", "zero"] = "learned"  # what stands for [MASK]: its row of the table, or nothing
    branch_scale: PositiveNumber = 1.0  # α of sibert-d: the length of each branch beside the stream that it joins
    attention_power: Annotated[int, Field(ge=1, le=4)] = 1  # n of sibert: weights relu(q·k)^n over their sum; paper: 1
    final_norm: bool = True  # sibert-d: normalise the stream before the head
    init_std: PositiveNumber = 0.02  # of the truncated normal that weights start from, paper section 5
    init: Literal["normal", "balanced", "admin", "gradinit"] = "normal"  # how weights start: pipeline/init/ has a file of each
    balance_batches: PositiveInt = 1  # of the balanced start: over how many global batches gradients are measured
    init_tokens: PositiveInt = 4096  # of admin and gradinit: tokens of a batch that they measure on, padding included
    gradinit: GradInitConfig = GradInitConfig()  # its search
    score_offset: NonNegativeNumber = 0.0  # where query and key biases start (pipeline/init/normal.py); 0 as in the paper
    unigram_bias: bool = True  # start the decoder's bias at the log unigram frequencies
    tau: PositiveNumber = 1.0  # of a row-normalised decoder only: logits are τ·<h, w/||w||>
    dropout: Annotated[float, Field(ge=0, lt=1), BeforeValidator(_as_float)] = 0.0  # fine-tuning only

    @property
    def decoder_is_row_normalised(self) -> bool:
        """Are the logits, too, scale invariant: is the decoder the invariant head, or a row-normalised embedding?"""
        return self.head == "invariant" or (self.head == "tied" and self.embedding == "row-normalised")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"model.width = {self.width} is not divisible by model.heads = {self.heads}")
        if self.positions == "rotary" and self.width // self.heads % 2:
            raise ValueError(
                f"model.positions = 'rotary' turns pairs: model.width / model.heads = {self.width // self.heads} is odd"
            )
        return self

    @model_validator(mode="after")
    def _head_suits_encoder(self) -> Self:
        if self.encoder == "bert" and self.head != "tied":
            raise ValueError(f"model.encoder = 'bert' with model.head = {self.head!r}: bert has the tied head")
        if self.encoder != "bert" and self.head == "tied" and self.embedding != "row-normalised":
            raise ValueError(
                f"model.encoder = {self.encoder!r} with model.head = 'tied': a head tied to the embedding breaks SIBERT's "
                "invariance, unless model.embedding = 'row-normalised' (or use the head paper or invariant)"
            )
        return self

    @model_validator(mode="after")
    def _only_sibert_d_has_a_stream_of_degree_0(self) -> Self:
        plain = {"embedding": "summed", "branch_scale": 1.0, "final_norm": True}
        for name, value in plain.items():
            if getattr(self, name) != value and self.encoder != "sibert-d":
                raise ValueError(
                    f"model.{name} = {getattr(self, name)!r} with model.encoder = {self.encoder!r}: only sibert-d can have it"
                )
        if self.encoder == "bert" and self.attention_power != 1:
            raise ValueError(f"model.attention_power = {self.attention_power}: bert has the softmax; only sibert can have it")
        return self

    @model_validator(mode="after")
    def _balanced_start_suits_model(self) -> Self:
        if self.init == "balanced" and not (self.encoder == "sibert-d" and self.decoder_is_row_normalised):
            raise ValueError(
                f"model.init = 'balanced' with model.encoder = {self.encoder!r} and model.head = {self.head!r}: only in "
                "sibert-d with a row-normalised decoder is every matrix scale invariant by itself; use 'normal'"
            )
        return self

    @model_validator(mode="after")
    def _starts_of_the_baseline_are_its_own(self) -> Self:
        why = {
            "admin": "SIBERT's layers are Pre-LN, which need none, and a trained ω on the shortcut breaks scale invariance",
            "gradinit": "it searches for the scale of each tensor, and SIBERT's output does not change with the scale of all",
        }
        if self.init in why and self.encoder != "bert":
            raise ValueError(
                f"model.init = {self.init!r} with model.encoder = {self.encoder!r}: it is for the Post-LN baseline, 'bert'; "
                f"{why[self.init]}; use 'normal' or 'balanced'"
            )
        return self


class DataConfig(Section):
    """What a sample is."""

    objective: Literal["mlm", "mlm+nsp"] = "mlm"  # masked tokens alone, or BERT's next sentence prediction with them
    seq_len: Annotated[int, Field(ge=8)] = 128  # tokens of a sequence, special ones included
    mask_fraction: Fraction = 0.15  # of a sequence's tokens, to be predicted


class BatchConfig(Section):
    """The global batch is the recipe's; accumulation follows from the launcher's world size."""

    global_sequences: PositiveInt = 256  # of one update, over all ranks
    micro_sequences: PositiveInt = 32  # of one forward pass of one rank


class ScheduleConfig(Section):
    """Learning rate over the run: linear warm-up, then the named decay (pipeline/optim/schedules.py)."""

    # to 0 at the end (linear, or as a power of what is left), by a factor at milestones, not at all, or to 0 in the last part
    # alone (warm-up, stable, decay)
    decay: Literal["linear", "polynomial", "step", "constant", "wsd"] = "linear"
    warmup_steps: NonNegativeInt = 0  # in which the rate rises from 0; 0: it starts at its peak
    # of `step`: fractions of the run at which the rate falls
    milestones: Annotated[tuple[PositiveNumber, ...], Field(strict=False, validate_default=True)] = ()
    power: PositiveNumber = 2.0  # of `polynomial`
    factor: Annotated[PositiveNumber, Field(le=1)] = 0.1  # of `step`: what it is multiplied by at each milestone
    decay_fraction: Fraction = 0.1  # of `wsd`: the last part of the run, in which the rate falls

    @field_validator("milestones")
    @classmethod
    def _milestones_are_within_the_run(cls, milestones: tuple[float, ...], others: ValidationInfo) -> tuple[float, ...]:
        decay = others.data.get("decay")
        if decay == "step" and not (milestones and all(milestone < 1 for milestone in milestones)):
            raise ValueError("fractions of the run, between 0 and 1")
        if decay == "step" and any(after <= before for before, after in itertools.pairwise(milestones)):
            raise ValueError("fractions of the run in rising order, each once")
        if decay != "step" and milestones:
            raise ValueError(
                f"milestones are of decay = 'step', and decay is {decay!r} here: leave them out, or set them to []"
            )
        return milestones


class OptimConfig(Section):
    """The encoder's optimiser: `sgd` is SGD + weight decay + relative global clipping (Algorithm 1)."""

    rule: Literal["sgd", "adamw", "lamb"] = "sgd"  # adamw, the baseline's, and lamb, fine-tuning's, train the head as well
    lr: PositiveNumber = 8e-4  # η at the schedule's peak
    weight_decay: NonNegativeNumber = 1e-2  # λ: a step takes ηλ of the weights away
    clip_c: PositiveOrInfinite = 2.0  # sgd only: C of the slides; the paper's table has 4; inf means no clipping
    # sgd only: one norm of everything (the paper), or one of each matrix (sibert-d)
    clip_over: Literal["all", "matrix"] = "all"
    max_grad_norm: PositiveOrInfinite = 1.0  # adamw only: the usual clipping by global norm
    betas: Betas = (0.9, 0.999)  # adamw and lamb: how much of its two moments a step keeps
    eps: PositiveNumber = 1e-6  # adamw and lamb: added to the root of the second moment
    schedule: ScheduleConfig = ScheduleConfig()  # of lr

    @model_validator(mode="after")
    def _update_can_be(self) -> Self:
        problem = update_problem(self.rule, self.lr, self.weight_decay, self.clip_c, section="optim.")
        if problem:
            raise ValueError(problem)
        return self


class HeadOptimConfig(Section):
    """LAMB for the parameters that are not scale invariant; unused where there are none (invariant head, AdamW)."""

    lr: PositiveNumber = 8e-4  # at the schedule's peak
    weight_decay: NonNegativeNumber = 1e-2  # of matrices; biases and LayerNorm are not decayed
    betas: Betas = (0.9, 0.999)  # how much of its two moments a step keeps
    eps: PositiveNumber = 1e-6  # added to the root of the second moment
    schedule: ScheduleConfig = ScheduleConfig()  # of lr

    @model_validator(mode="after")
    def _update_can_be(self) -> Self:
        problem = update_problem("lamb", self.lr, self.weight_decay, section="head_optim.")
        if problem:
            raise ValueError(problem)
        return self


class TrainConfig(Section):
    """The run: its length, its rhythm and its seed."""

    steps: PositiveInt = 1000  # updates in all
    seed: NonNegativeInt = 0  # of the initial weights, the order of samples, and the masks
    ds_config: str = "zero1"  # DeepSpeed's mechanics: a file of ds_configs/, or a path
    log_every_steps: PositiveInt = 10  # a line of metrics.jsonl
    eval_every_steps: PositiveInt = 100  # the loss on held-out text
    eval_sequences: PositiveInt = 512  # held-out sequences of each evaluation; the last one takes them all
    checkpoint_every_steps: PositiveInt = 500  # and one at the end
    keep_last_checkpoints: NonNegativeInt = 0  # the newest so many are kept; 0: all, none is ever deleted
    keep_every_steps: NonNegativeInt = 0  # of the older ones, those at multiples of this are kept, too; 0: none
    activation_checkpointing: bool = False  # keep one tensor a layer and compute the layers again in the backward pass
    # sibert's: triton where a GPU has it, or blocks of torch's products; triton is refused where it cannot run
    attention_kernel: Literal["auto", "blocked", "triton"] = "auto"
    # the update goes in parts, the first at most so many weights (or a 64th); 0: all at once (pipeline/optim/groups.py)
    update_elements: NonNegativeInt = 1_000_000
    split_masters: bool = True  # in bf16: fp32 masters as bf16 parameters and 16 bits more (ZeRO 1-3, not offloaded)
    # a run that gets no further for so long ends, and says which rank is to blame
    timeout_s: Annotated[PositiveNumber, Field(ge=LEAST_TIMEOUT_S)] = 300.0
    max_nonfinite_steps: PositiveInt = 5  # so many skipped steps in a row end the run with an error


class TaskConfig(Section):
    """What a run learns. A fine-tuning run's length is its epochs: `train.steps` and the warm-up's steps follow from them."""

    name: Literal["pretraining", "mnli", "squad1", "squad2"] = "pretraining"
    head: Literal["linear", "invariant"] = "linear"  # of fine-tuning: pipeline/model/task_heads.py says what each is
    epochs: PositiveNumber = 3.0  # of the task's training set
    warmup_fraction: Annotated[float, Field(ge=0, lt=1), BeforeValidator(_as_float)] = 0.1  # of all steps
    stride: PositiveInt = 128  # SQuAD: tokens of a context from one window to the next
    question_tokens: PositiveInt = 64  # SQuAD: a longer question is refused
    answer_tokens: PositiveInt = 64  # SQuAD: a longer answer is never given
    n_best: PositiveInt = 20  # SQuAD: answers that are kept of each question


class RunConfig(Section):
    """Everything a run is. `load.load_recipe` makes one; `load.as_dict` and `load.from_dict` round-trip it through JSON."""

    description: str = ""  # prose, for people
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    batch: BatchConfig = BatchConfig()
    optim: OptimConfig = OptimConfig()
    head_optim: HeadOptimConfig = HeadOptimConfig()
    train: TrainConfig = TrainConfig()
    task: TaskConfig = TaskConfig()

    @model_validator(mode="after")
    def _every_position_has_an_embedding(self) -> Self:
        if self.data.seq_len > self.model.max_seq_len:
            raise ValueError(f"data.seq_len = {self.data.seq_len} exceeds model.max_seq_len = {self.model.max_seq_len}")
        return self

    @model_validator(mode="after")
    def _relative_clipping_is_of_invariant_models(self) -> Self:
        if self.optim.rule == "sgd" and self.model.encoder == "bert" and not math.isinf(self.optim.clip_c):
            raise ValueError("model.encoder = 'bert' is not scale invariant: relative clipping needs optim.clip_c = inf there")
        if self.optim.clip_over == "matrix" and (self.optim.rule != "sgd" or self.model.encoder != "sibert-d"):
            raise ValueError(
                f"optim.clip_over = 'matrix' with optim.rule = {self.optim.rule!r} and model.encoder = "
                f"{self.model.encoder!r}: only in sibert-d is every matrix scale invariant by itself; use 'all'"
            )
        return self

    @model_validator(mode="after")
    def _kernels_are_of_scale_invariant_attention(self) -> Self:
        if self.model.encoder == "bert" and self.train.attention_kernel != "auto":
            raise ValueError(
                f"train.attention_kernel = {self.train.attention_kernel!r} is of scale invariant attention: "
                "model.encoder = 'bert' has torch's softmax attention; leave it at 'auto'"
            )
        return self

    @model_validator(mode="after")
    def _balanced_start_suits_optimiser(self) -> Self:
        if self.model.init == "balanced" and (self.optim.rule != "sgd" or self.optim.weight_decay == 0):
            raise ValueError(
                "model.init = 'balanced' is the equilibrium of SGD with weight decay: set optim.rule = 'sgd' and λ > 0"
            )
        return self

    @model_validator(mode="after")
    def _warmup_ends_within_the_run(self) -> Self:
        for name, schedule in (("optim", self.optim.schedule), ("head_optim", self.head_optim.schedule)):
            if schedule.warmup_steps >= self.train.steps:
                raise ValueError(
                    f"{name}.schedule.warmup_steps = {schedule.warmup_steps} is not below train.steps = {self.train.steps}"
                )
            if schedule.decay == "wsd" and schedule.warmup_steps > self.train.steps * (1 - schedule.decay_fraction):
                raise ValueError(
                    f"{name}.schedule.warmup_steps = {schedule.warmup_steps} reaches into the decay, the last "
                    f"{schedule.decay_fraction:g} of train.steps = {self.train.steps}: lower it or the decay_fraction"
                )
        return self

    @model_validator(mode="after")
    def _options_of_fine_tuning_are_its_own(self) -> Self:
        if self.model.dropout and self.task.name == "pretraining":
            raise ValueError(f"model.dropout = {self.model.dropout:g} is of fine-tuning: pretraining has none here")
        if self.optim.rule == "lamb" and self.task.name == "pretraining":
            raise ValueError("optim.rule = 'lamb' is of fine-tuning: pretraining has 'sgd' (LAMB for the head) and 'adamw'")
        if self.task.head == "invariant" and self.model.encoder == "bert":
            raise ValueError("task.head = 'invariant' is SIBERT's: model.encoder = 'bert' has the linear head")
        return self
