"""The pretrained run, or export of one, that a fine-tuning starts from: its encoder, and what is said of it in results."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.checkpoint.layout import MANIFEST, step_directory
from pipeline.config.schema import RunConfig
from pipeline.init.normal import init_weights
from pipeline.model.build import build_model
from pipeline.model.pretraining import PretrainingModel, parameter_count
from pipeline.model.shortcut import folded
from pipeline.run.exported import WEIGHTS_FILE, is_exported
from pipeline.run.metrics_file import METRICS, read_metrics
from pipeline.run.trained import load_run, read_record
from preprocessing.base.files import file_sha256
from preprocessing.corpus.reader import Corpus

INITIAL = 1e-6  # weights whose every matrix is nearer to the initial one's direction (1 - cosine) were never trained


@dataclass(frozen=True)
class Source:
    """`encoder`: its parameters by name, Admin's ω folded into the others; None where training is to begin from scratch.
    `facts`: for results.json."""

    config: RunConfig
    corpus: Corpus
    encoder: Mapping[str, Tensor] | None
    facts: Mapping[str, Any]

    @property
    def weights_sha256(self) -> str:
        """Which weights those are."""
        return str(self.facts["weights_sha256"])


def read_source(run_dir: Path, corpus_dir: Path | None, from_scratch: bool) -> Source:
    """A run's newest checkpoint, or an export, which knows neither a corpus of its own (`corpus_dir`: one of its tokenizer) nor
    how long its training took. ValueError as `load_run`: no run, no checkpoint, fine-tuned already, another corpus."""
    exported = is_exported(run_dir)
    if exported and corpus_dir is None:
        raise ValueError(f"{run_dir} is an exported model: give a corpus of its tokenizer with --corpus")
    config, corpus, model, step = load_run(run_dir, corpus_dir)
    rows = [] if exported else [row for row in read_metrics(run_dir / METRICS)[0] if row["step"] <= step]
    weights = run_dir / WEIGHTS_FILE if exported else step_directory(run_dir, step) / MANIFEST
    facts = {
        "run": str(run_dir.resolve()),
        "recipe": read_record(run_dir)["recipe"],
        "encoder": config.model.encoder,
        "encoder_parameters": parameter_count(model.encoder),
        "from_scratch": from_scratch,
        "step": 0 if from_scratch else step,
        "tokens": 0 if from_scratch else step * config.batch.global_sequences * config.data.seq_len,
        "train_time_s": 0.0 if from_scratch else sum(row["time_s"] for row in rows) if rows else None,
        "world_size": rows[-1]["world_size"] if rows else None,
        "distance_from_initial": distance_from_initial(model, config, corpus),
        "weights_sha256": "from scratch" if from_scratch else file_sha256(weights),
    }
    encoder = None if from_scratch else {name: tensor.clone() for name, tensor in folded(model.encoder).items()}
    return Source(config, corpus, encoder, facts)


@torch.no_grad()
def distance_from_initial(model: PretrainingModel, config: RunConfig, corpus: Corpus) -> float:
    """How far the encoder has turned away from the weights that its seed gives: 1 - cosine of the matrix that has turned most.
    (A start may rescale a matrix; it does not turn it.)"""
    start = build_model(config, corpus.vocab_size)
    init_weights(start, config.model, config.train.seed)
    initial = dict(start.encoder.named_parameters())
    turned = [0.0]
    for name, now in model.encoder.named_parameters():
        x, y = now.double().flatten(), initial[name].double().flatten()
        norms = float(x.norm() * y.norm())
        if now.ndim > 1 and norms:
            turned.append(1 - float(x @ y) / norms)
    return max(turned)
