"""The model of a recipe, real or without storage."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from pipeline.config.schema import RunConfig
from pipeline.model.pretraining import PretrainingModel
from pipeline.model.task_model import TaskModel
from pipeline.tasks.examples import LABELS

MOST_LAYERS = 1_000  # of a model that is built only to be counted or traced: tracing so many takes minutes


def build_model(config: RunConfig, vocab_size: int, unigram_counts_V: np.ndarray | None = None) -> PretrainingModel:
    """The recipe's model for a vocabulary of V pieces, on torch's default device, in float32 and with torch's own
    initialisation. `unigram_counts_V`: how often each piece stands in the text, for the decoder's bias; None: all alike."""
    log_unigram_V = None if unigram_counts_V is None else log_unigram(unigram_counts_V)
    model = PretrainingModel(config.model, vocab_size, config.data.objective == "mlm+nsp", log_unigram_V)
    model.encoder.use_mechanics(config)
    return model


def build_task_model(config: RunConfig, vocab_size: int) -> TaskModel:
    """The model of a fine-tuning, as `build_model`."""
    return TaskModel(config, vocab_size, len(LABELS))


def skeleton(config: RunConfig, vocab_size: int) -> PretrainingModel | TaskModel:
    """What the configuration trains, without storage, on torch's meta device. ValueError for more than MOST_LAYERS layers, and
    for sizes that no tensor can have."""
    if config.model.layers > MOST_LAYERS:
        raise ValueError(f"model.layers = {config.model.layers:,}: expected at most {MOST_LAYERS:,}; choose a shallower model")
    try:
        with torch.device("meta"), _NoFilling():
            return (build_model if config.task.name == "pretraining" else build_task_model)(config, vocab_size)
    except (RuntimeError, OverflowError, MemoryError) as error:
        raise ValueError(f"model.width = {config.model.width:,}, vocabulary {vocab_size:,}: too large for a tensor") from error


class _NoFilling(TorchFunctionMode):
    """Within it tensors keep what they have when torch's modules initialise themselves. Of a tensor without storage that is
    nothing, and torch, which would fill it in Python, imports its compiler for that: two seconds of a rank's start."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", "") == init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


def log_unigram(counts_V: np.ndarray) -> Tensor:
    """Log of the add-one smoothed unigram frequencies, [V] float32."""
    smoothed_V = counts_V.astype(np.float64) + 1.0
    return torch.from_numpy(np.log(smoothed_V / smoothed_V.sum())).float()
