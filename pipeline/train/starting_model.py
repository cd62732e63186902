"""The model that a start begins with: its weights from the run's own checkpoint, from another run (`--from`), or new."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from pipeline.checkpoint.reader import Checkpoint
from pipeline.config.batch import BatchArithmetic
from pipeline.config.schema import RunConfig
from pipeline.data.pretraining import PretrainingData
from pipeline.init.from_weights import take_weights
from pipeline.init.initial_model import check_invariance, initial_model
from pipeline.model.build import build_model
from pipeline.model.pretraining import PretrainingModel, parameter_shapes
from pipeline.run.directory import check_same
from pipeline.run.started_from import Weights, same_samples
from preprocessing.corpus.reader import Corpus


def new_model(
    config: RunConfig,
    corpus: Corpus,
    data: PretrainingData | None,
    batch: BatchArithmetic,
    device: torch.device,
    beat: Callable[[str], None],
) -> PretrainingModel:
    """Of the recipe's initialisation. Rank 0, which alone has `data`, balances it and looks whether it is scale invariant; the
    engine hands its weights to all."""
    model = initial_model(config, corpus, data, batch, device, beat)
    if data is not None:
        check_invariance(model, config, corpus)
    return model


def trained_model(
    config: RunConfig, corpus: Corpus, source: Checkpoint | Weights, made_from: Mapping[str, Any], is_main: bool
) -> PretrainingModel:
    """With the weights of the run's own checkpoint, or of another run, on rank 0 (`is_main`), from where the engine hands them
    to all. ValueError if the checkpoint is not of the run whose run file is `made_from`."""
    model = build_model(config, corpus.vocab_size, corpus.unigram_counts("train"))
    if isinstance(source, Checkpoint):
        check_same(source.manifest["made_from"], made_from, source.directory, "it is not this run's: move it away")
        source.check_covers(parameter_shapes(model))
    if is_main:
        if isinstance(source, Checkpoint):
            source.load_parameters(model)
        else:
            take_weights(model, source.tensor, source.trained_positions, config.data.seq_len)
        check_invariance(model, config, corpus)
    return model


def lines_of(weights: Weights, wanted: Mapping[str, Any]) -> list[str]:
    """What the user should know of a start from another run's weights; `wanted`: the new run's file."""
    lines = [f"starting from the weights of step {weights.record['step']} ({weights.record['checkpoint']})"]
    if same_samples(weights, wanted):
        lines.append(
            f"note: train.seed = {wanted['config']['train']['seed']} as there, so the same samples come again in the same "
            "order with the same masks; --set train.seed=… for others"
        )
    return lines
