"""The model that a run starts from, alike on every rank."""

import torch

from pipeline.config.schema import RunConfig
from pipeline.init.balanced import share_a_direction
from pipeline.init.normal import init_weights
from pipeline.model.build import build_model
from pipeline.model.invariance import probe_batch, quick_check
from pipeline.model.pretraining import PretrainingModel, on_device
from preprocessing.corpus.reader import Corpus


def initial_model(config: RunConfig, corpus: Corpus, device: torch.device) -> PretrainingModel:
    """From the seed. What a balanced start adds to that before it measures any gradient is there; `balance` does the rest."""
    model = build_model(config, corpus.vocab_size, corpus.unigram_counts("train"))
    init_weights(model, config.model, config.train.seed)
    model.to(device)
    if config.model.init == "balanced" and model.mlm_head.decoder is not None:
        share_a_direction(model.mlm_head.decoder.weight, config.model.init_std, config.train.seed)
    return model


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
