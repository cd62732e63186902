"""The model that a start begins with: its weights from the run's own checkpoint, from another run (`--from`), or new."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pipeline.checkpoint.reader import Checkpoint
from pipeline.config.schema import RunConfig
from pipeline.data.pretraining import PretrainingData
from pipeline.engine.processes import sum_over_ranks
from pipeline.init.balanced import balance, gradient_sums, put_mean_gradient
from pipeline.init.from_weights import take_weights
from pipeline.init.initial_model import check_invariance, initial_model
from pipeline.model.build import build_model
from pipeline.model.pretraining import PretrainingModel, parameter_shapes
from pipeline.run.directory import check_same
from pipeline.run.started_from import Weights, same_samples
from pipeline.train.micro_batches import MicroBatches, micro_batches
from pipeline.train.place import Place
from preprocessing.corpus.reader import Corpus


def new_model(
    config: RunConfig, corpus: Corpus, data: PretrainingData, place: Place, beat: Callable[[str], None]
) -> PretrainingModel:
    """Of the recipe's initialisation, balanced by all ranks together; rank 0, whose weights the engine hands to all, looks
    whether it is scale invariant. `beat` is called at every micro batch. A collective."""
    model = place.ranks.together(lambda: initial_model(config, corpus, place.device))
    if config.model.init == "balanced":
        began_s, batches = time.monotonic(), config.model.balance_batches
        parts = micro_batches(data, place.world, place.batch, place.device)
        lr, weight_decay = config.optim.lr, config.optim.weight_decay
        balance(model, partial(_global_gradient, model, parts, place, beat), batches, lr, weight_decay)
        place.say(
            f"balanced start from {batches} global batches in {time.monotonic() - began_s:.1f} s; lr {lr:.4g}, weight decay "
            f"{weight_decay:.4g}: lr · weight decay · steps = {lr * weight_decay * config.train.steps:.3g}"
        )
    place.ranks.on_main(lambda: check_invariance(model, config, corpus))
    return model


def _global_gradient(
    model: PretrainingModel, parts: MicroBatches, place: Place, beat: Callable[[str], None], step: int
) -> None:
    """Leave the gradient of a step's global batch in `.grad`, without an engine: each rank takes its micro batches, as in
    training. A collective."""
    sums = place.ranks.together(lambda: gradient_sums(model, parts(step), lambda: beat("the balanced start")))
    put_mean_gradient(model, map(sum_over_ranks, sums), place.batch.accumulation_steps * place.ranks.size)


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
