"""One run of `certify`: the engine's side and the paper's side."""

from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config.batch import BatchArithmetic
from pipeline.config.ds_config import deepspeed_dictionary, load_ds_config, precision
from pipeline.config.load import load_recipe
from pipeline.config.schema import RunConfig
from pipeline.data.batch import Batch
from pipeline.data.random_batch import random_batch
from pipeline.distributed.launch import World
from pipeline.engine.build import build_engine
from pipeline.engine.processes import gather_objects
from pipeline.init.normal import init_weights
from pipeline.model.build import build_model
from pipeline.model.pretraining import PretrainingModel
from pipeline.optim.groups import SCALE_INVARIANT, parameter_groups
from pipeline.optim.optimizer import PretrainingOptimizer
from pipeline.optim.schedules import lr_at
from pipeline.verify.comparison import STEPS, Cell, Differences, Result
from pipeline.verify.reference import Norms, Reference

FEWEST_SEQUENCES, LENGTH, PREDICTIONS, VOCABULARY = 16, 16, 3, 97
TAILS, TIED = "tails", "tied"

# Bucket and group sizes in proportion to the model, so that they cut it as the real ones cut a real one.
SCALED_DOWN = {
    "reduce_bucket_size": 6000,
    "allgather_bucket_size": 6000,
    "sub_group_size": 3000,
    "stage3_prefetch_bucket_size": 6000,
    "stage3_param_persistence_threshold": 25,
    "stage3_max_live_parameters": 3000,
    "stage3_max_reuse_distance": 3000,
}
# Odd sizes, so that every cut needs padding; scores well above 0, because gradients through nearly empty attention rows are
# so ill-conditioned that fp32 alone is off by more than 1e-5.
SMALL_MODEL = ("layers=1", "width=32", "heads=2", "ffn_width=41", f"max_seq_len={LENGTH}", "init=normal", "score_offset=1.5")
COMMON = (
    *(f"model.{setting}" for setting in SMALL_MODEL),
    f"data.seq_len={LENGTH}",
    f"train.steps={STEPS + 1}",
    "train.update_elements=2000",
)
# What is trained: recipe settings that let some steps be clipped and others not.
CASES: dict[str, tuple[str, ...]] = {
    "paper": (
        *("model.encoder=sibert-a", "model.head=paper", "data.objective=mlm+nsp"),
        *("optim.lr=1.0", "optim.weight_decay=0.002"),
    ),
    "invariant": ("optim.lr=0.05", "optim.weight_decay=0.05"),
    "matrix": ("optim.lr=0.03", "optim.weight_decay=0.1", "optim.clip_over=matrix", "train.split_masters=false"),
    TAILS: ("optim.lr=0.05", "optim.weight_decay=0.005"),
    TIED: ("optim.lr=0.05", "optim.weight_decay=0.05"),
    "adamw": (
        *("model.encoder=bert", "model.head=tied", "model.score_offset=0", "optim.rule=adamw"),
        *("optim.lr=0.001", "optim.weight_decay=0.1", "optim.max_grad_norm=1.3"),
    ),
}


class _Trained:
    """The engine's side of a cell, on every rank.

    Thirteen attributes: all that a step of a cell needs on a rank.
    """

    def __init__(self, cell: Cell, world: World, device: torch.device) -> None:
        self.world, self.device, self.accumulation = world, device, cell.accumulation
        self.case, self.config = cell.case, _config(cell.case)
        mechanics = _scaled_down(load_ds_config(cell.ds_config))
        self.bf16 = precision(mechanics) == "bf16"
        model = _model(cell.case)
        self.start = {name: p.bfloat16() if self.bf16 else p.clone() for name, p in model.named_parameters()}
        model.to(device)
        self.names = {id(p): name for name, p in model.named_parameters()}
        self.optimizer = PretrainingOptimizer(parameter_groups(model, self.config))
        self.sequences = _sequences(cell, world)
        self.micro = self.sequences // (world.size * cell.accumulation)
        batch = BatchArithmetic(world.size, self.micro, cell.accumulation, self.sequences)
        dictionary, split = deepspeed_dictionary(mechanics, batch), self.config.train.split_masters
        self.engine = build_engine(model, self.optimizer, dictionary, device, split)
        self.held: dict[str, Tensor] = {}
        if self.bf16:
            _record_gradients(self.optimizer, self.held)

    def step(self, step: int) -> None:
        """One update from one global batch."""
        rates = _rates(self.config, step)
        for group in self.optimizer.all_groups:
            group["lr"] = rates[group["rule"] == "lamb"]
        batch = _batch(self.case, self.sequences, step)
        for micro_step in range(self.accumulation):
            first = (micro_step * self.world.size + self.world.rank) * self.micro
            micro = batch.map(partial(_rows, first=first, count=self.micro)).to(self.device)
            self.engine.backward(self.engine(micro).loss)
            self.engine.step()

    def masters(self, like: dict[str, Tensor]) -> dict[str, Tensor]:
        """The whole fp32 masters, put together from all ranks' fragments."""
        assert self.optimizer.partitions is not None
        return assemble(self.optimizer.partitions.masters(), self.optimizer, like)


def run_cell(cell: Cell, world: World, device: torch.device) -> Result:
    """Train it, on every rank; the same result on all."""
    trained = _Trained(cell, world, device)
    differences = Differences(trained.bf16)
    if trained.bf16:
        x = _beside_reference(trained, differences)
    else:
        expected, x = _on_paper(cell.case, trained.sequences)
        for step in range(STEPS):
            trained.step(step)
            differences.decision(trained.optimizer, expected[step])
    differences.masters(trained.masters(x), x)
    differences.weights(trained.engine, trained.names, x)
    trained.engine.destroy()
    # In a larger batch the baseline's gradient is too small for its fixed limit.
    both_kinds = cell.case != "adamw" or trained.sequences == FEWEST_SEQUENCES
    return differences.result(cell, world, both_kinds)


def _sequences(cell: Cell, world: World) -> int:
    """The smallest global batch that every rank's micro batches share evenly, and not below FEWEST_SEQUENCES."""
    per_micro_sequence = world.size * cell.accumulation
    return -(-FEWEST_SEQUENCES // per_micro_sequence) * per_micro_sequence


@cache
def _on_paper(case: str, sequences: int) -> tuple[list[Norms], dict[str, Tensor]]:
    """The float64 reference's norms at each step and its last parameters: gradients and updates are all its own."""
    config = _config(case)
    model = _model(case)
    reference = Reference(dict(model.named_parameters()), _clip_sets(model, config))
    norms = []
    for step in range(STEPS):
        gradients = _float64_gradients(case, sequences, reference.x, step)
        norms.append(_reference_step(reference, gradients, config, step))
    return norms, reference.x


def _beside_reference(trained: _Trained, differences: Differences) -> dict[str, Tensor]:
    """bf16: train while the reference takes each step with the gradients that the ranks hold; its last parameters."""
    config = trained.config
    reference = Reference(trained.start, _clip_sets(_model(trained.case), config))
    for step in range(STEPS):
        trained.step(step)
        exact = _float64_gradients(trained.case, trained.sequences, reference.x, step)
        applied = assemble(trained.held, trained.optimizer, exact)
        differences.gradient(applied, exact)
        differences.decision(trained.optimizer, _reference_step(reference, applied, config, step))
    return reference.x


def _reference_step(reference: Reference, gradients: dict[str, Tensor], config: RunConfig, step: int) -> Norms:
    lr, head_lr = _rates(config, step)
    return reference.step(gradients, lr, config.optim, head_lr, config.head_optim)


def _rates(config: RunConfig, step: int) -> tuple[float, float]:
    lr, head_lr = (lr_at(step, o.lr, o.schedule, config.train.steps) for o in (config.optim, config.head_optim))
    return lr, head_lr


@cache
def _config(case: str) -> RunConfig:
    return load_recipe("tiny" if case == TIED else "tiny-untied", [*COMMON, *CASES[case]])


def _clip_sets(model: PretrainingModel, config: RunConfig) -> dict[str, list[str]]:
    """Which tensors share a norm, by definition and not by `parameter_groups`: the encoder's, and the invariant head's; or
    each linear's weight with its bias, and all embeddings together, under the name of the first."""
    if config.optim.rule == "adamw":
        return {}
    names = [n for n, _ in model.named_parameters() if n.startswith("encoder.") or config.model.decoder_is_row_normalised]
    if config.optim.clip_over == "all":
        return {SCALE_INVARIANT: names}
    sets: dict[str, list[str]] = {}
    for name in names:
        sets.setdefault("embedding" if "embedding" in name else name.rpartition(".")[0], []).append(name)
    return {members[0]: members for members in sets.values()}


def _model(case: str) -> PretrainingModel:
    config = _config(case)
    model = build_model(config, VOCABULARY, np.arange(VOCABULARY))
    init_weights(model, config.model, seed=0)
    if case == TAILS:  # rows of log-normal lengths: most of a norm is in a few of them
        generator = torch.Generator().manual_seed(1)
        for weight_VD in (p for p in model.parameters() if p.shape[0] == VOCABULARY):  # the embedding, and a decoder of its own
            weight_VD.detach().mul_(torch.randn(VOCABULARY, 1, generator=generator).mul(1.5).exp())
    return model


def _scaled_down(mechanics: dict[str, Any]) -> dict[str, Any]:
    zero = {key: SCALED_DOWN.get(key, value) for key, value in mechanics["zero_optimization"].items()}
    return {**mechanics, "zero_optimization": zero}


def _batch(case: str, sequences: int, step: int) -> Batch:
    """The global batch of a step: random tokens, some padding, some empty prediction slots."""
    config = _config(case)
    generator, nsp = torch.Generator().manual_seed(1000 + step), config.data.objective == "mlm+nsp"
    batch = random_batch(generator, sequences, LENGTH, PREDICTIONS, VOCABULARY, nsp=nsp, shortest=LENGTH // 2)
    types_BL = (torch.arange(LENGTH) >= LENGTH // 3).long().repeat(sequences, 1)
    return replace(batch, token_type_ids=types_BL)


def _rows(tensor: Tensor, first: int, count: int) -> Tensor:
    return tensor[first : first + count]


def _float64_gradients(case: str, sequences: int, x: dict[str, Tensor], step: int) -> dict[str, Tensor]:
    """Of the whole global batch at the parameters `x`, in one process."""
    model = _model(case).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(x[name])
    model(_batch(case, sequences, step)).loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _record_gradients(optimizer: PretrainingOptimizer, held: dict[str, Tensor]) -> None:
    """Keep, at each decision, what this rank holds of the reduced gradient."""
    prepare = optimizer.prepare

    def prepare_and_record() -> Any:
        assert optimizer.partitions is not None
        held.update({name: gradient.clone() for name, gradient in optimizer.partitions.gradients().items()})
        return prepare()

    optimizer.prepare = prepare_and_record  # type: ignore[method-assign]


def assemble(pieces: dict[str, Tensor], optimizer: PretrainingOptimizer, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """The whole tensors from all ranks' fragments; ValueError unless they hold every element the right number of times."""
    assert optimizer.partitions is not None
    mine = [(f.name, f.offset, pieces[f.name].float().cpu()) for f in optimizer.partitions.fragments]
    whole = {name: torch.zeros(t.numel(), dtype=torch.float64) for name, t in like.items()}
    times = {name: torch.zeros(t.numel(), dtype=torch.int64) for name, t in like.items()}
    for of_rank in gather_objects(mine):
        for name, offset, piece in of_rank:
            whole[name][offset : offset + piece.numel()] = piece.double()
            times[name][offset : offset + piece.numel()] += 1
    for name, count in times.items():
        if not (count == optimizer.partitions.copies).all():
            raise ValueError(f"the ranks' fragments of {name} hold its elements {count.min()} to {count.max()} times")
    return {name: t.view_as(like[name]) for name, t in whole.items()}
