"""The model that a run starts from, alike on every rank."""

import time
from collections.abc import Callable
from functools import partial

import torch

from pipeline.config.batch import BatchArithmetic
from pipeline.config.schema import RunConfig
from pipeline.data.batch import rank_indices
from pipeline.data.pretraining import PretrainingData
from pipeline.init.balanced import balance, share_a_direction
from pipeline.init.normal import init_weights
from pipeline.model.build import build_model
from pipeline.model.invariance import probe_batch, quick_check
from pipeline.model.pretraining import PretrainingModel, on_device
from preprocessing.corpus.reader import Corpus


def initial_model(
    config: RunConfig,
    corpus: Corpus,
    data: PretrainingData | None,
    batch: BatchArithmetic,
    device: torch.device,
    beat: Callable[[str], None] = lambda doing: None,
) -> PretrainingModel:
    """From the seed and, for a balanced start, the first global batches, all of which this rank takes alone: so the start is
    the same bit for bit on any number of ranks that take equal micro batches. `beat` is called at every micro batch.
    Without `data` nothing is balanced: on a rank whose weights will be another one's."""
    model = build_model(config, corpus.vocab_size, corpus.unigram_counts("train"))
    init_weights(model, config.model, config.train.seed)
    model.to(device)
    if config.model.init == "balanced" and data is not None:
        if model.mlm_head.decoder is not None:
            share_a_direction(model.mlm_head.decoder.weight, config.model.init_std, config.train.seed)
        backward = partial(_backward, model, data, batch, device, beat)
        began_s = time.monotonic()
        balance(model, backward, config.model.balance_batches, config.optim.lr, config.optim.weight_decay)
        batches, product = config.model.balance_batches, config.optim.lr * config.optim.weight_decay * config.train.steps
        print(
            f"balanced start from {batches} global batches in {time.monotonic() - began_s:.1f} s; lr {config.optim.lr:.4g}, "
            f"weight decay {config.optim.weight_decay:.4g}: lr · weight decay · steps = {product:.3g}",
            flush=True,
        )
    return model


def _backward(
    model: PretrainingModel,
    data: PretrainingData,
    batch: BatchArithmetic,
    device: torch.device,
    beat: Callable[[str], None],
    step: int,
) -> None:
    """Add the gradient of the global batch of a step, without an engine."""
    parts = batch.accumulation_steps * batch.world_size
    for part in range(parts):
        beat("the balanced start")
        indices = rank_indices(step, part, 0, 1, batch.global_sequences, batch.micro_sequences)
        (model(data.batch(indices).to(device)).loss / parts).backward()


def check_invariance(model: PretrainingModel, config: RunConfig, corpus: Corpus) -> None:
    """ValueError if what SGD is going to train is not scale invariant; nothing to check in a model that does not claim it."""
    if not model.scale_invariant_names():
        return
    nsp, seq_len = config.data.objective == "mlm+nsp", min(16, config.data.seq_len)
    probe = probe_batch(corpus.vocab_size, config.model.max_seq_len, nsp, 3, seq_len, config.train.seed)
    problems = quick_check(model, probe.to(on_device(model)))
    if problems:
        more = f" (and {len(problems) - 1} more: `python -m pipeline invariance`)" if problems[1:] else ""
        raise ValueError(f"the model is not scale invariant: {problems[0]}{more}")
