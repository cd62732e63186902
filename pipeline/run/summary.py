"""RUN/summary.json: the run's final figures, computed from its metrics.jsonl."""

import math
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.config.schema import RunConfig
from pipeline.run.directory import STARTED_FROM, versions
from pipeline.run.extension import lengths
from pipeline.run.metrics_file import read_metrics
from pipeline.run.started_from import flat_record
from preprocessing.base.json_file import write_object
from preprocessing.corpus.reader import Corpus

FINAL_FRACTION = 0.05  # the final training loss is the mean of the losses logged in this last part of the run


def peak_memory_bytes() -> int:
    """The peak memory of this process so far: the GPU allocator's, or on a CPU that of the resident set."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def write_summary(
    run_dir: Path, config: RunConfig, recipe: str, corpus: Corpus, parameters: int, made_from: Mapping[str, Any]
) -> dict[str, Any]:
    """Write RUN/summary.json of a finished run, and return its contents. Losses are in nats per prediction. `made_from`: its
    run file. ValueError if the end of the run's metrics is missing."""
    train, evaluations = read_metrics(run_dir / "metrics.jsonl")
    if not train or not evaluations:
        raise ValueError(f"{run_dir}/metrics.jsonl holds no training or no evaluation: the run's history is lost")
    last, final = train[-1], evaluations[-1]
    for what, row in (("training", last), ("evaluation", final)):
        if row["step"] != config.train.steps:
            raise ValueError(
                f"{run_dir}/metrics.jsonl: its last {what} is of step {row['step']}, not {config.train.steps}: the end of the "
                "run's history is lost; the checkpoint is whole: `python -m pipeline evaluate` gives the final loss"
            )
    after = config.train.steps * (1 - FINAL_FRACTION)
    tail = [row["loss"] for row in train if row["step"] > after and row["loss"] is not None]
    rates = sorted(row["tokens_per_s"] for row in train)
    settled = _settled_row(train, config.optim.lr)
    summary = {
        "recipe": recipe,
        **(flat_record(made_from[STARTED_FROM]) if STARTED_FROM in made_from else {}),
        "final_train_loss": sum(tail) / len(tail) if tail else None,
        "heldout_loss": final["heldout_loss"],
        "heldout_mask_loss": final["heldout_mask_loss"],
        "heldout_visible_loss": final.get("heldout_visible_loss"),
        "heldout_nsp_accuracy": final.get("heldout_nsp_accuracy"),
        "heldout_unigram_entropy_nats": corpus.manifest.heldout_unigram_entropy_nats,
        "heldout_unigram_cross_entropy_nats": corpus.manifest.heldout_unigram_cross_entropy_nats,
        "heldout_by_frequency": final.get("heldout_by_frequency"),
        "steps": config.train.steps,
        **({"extended_from_steps": lengths(made_from)} if lengths(made_from) else {}),
        "tokens": last["tokens"],
        "tokens_per_s": rates[len(rates) // 2],
        "train_time_s": sum(row["time_s"] for row in train),
        "clipped_fraction": last["clipped_fraction"],
        "skipped_steps": last["skipped_steps"],
        "param_norm": last["param_norm"],
        "equilibrium_step": settled and settled["step"],
        "equilibrium_param_norm": settled and settled["param_norm"],
        "equilibrium_norm": settled and settled["equilibrium_norm"],
        "parameters": parameters,
        "peak_memory_bytes": max(row["memory_bytes"] for row in train),
        "world_size": last["world_size"],
        "seed": config.train.seed,
        "versions": versions(),
    }
    summary = {key: _finite(value) for key, value in summary.items()}
    write_object(run_dir / "summary.json", summary)
    return summary


def _settled_row(train: Sequence[dict[str, Any]], peak_lr: float) -> dict[str, Any] | None:
    """The last row whose learning rate is at least half the peak. The norm follows its equilibrium with a delay of about
    1/(4ηλ) steps, so the two cannot be compared near the end of a decay to 0, where the equilibrium itself goes to 0."""
    rows = [row for row in train if row["equilibrium_norm"] is not None and row["lr"] >= peak_lr / 2]
    return rows[-1] if rows else None


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
