"""A run as its directory tells it: documents, records, and what follows from them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.run.metrics_file import METRICS, read_metrics
from preprocessing.base.json_file import read_object

Rows = Sequence[Mapping[str, Any]]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Run:
    """A run as its directory tells it. Documents that are not there are empty; `summary` is, of an unfinished run."""

    name: str
    made_from: dict[str, Any]  # of config.json: recipe, data, corpus_sha256
    config: dict[str, Any]  # of config.json: the RunConfig
    ds_config: dict[str, Any]
    versions: dict[str, Any]
    summary: dict[str, Any]
    guesses: dict[str, Any]
    start: dict[str, Any]  # of start.json: what Admin or GradInit measured
    train: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]


def load_run(run_dir: Path) -> Run:
    """Read a run directory. ValueError if there is nothing to draw or a document is not a JSON object."""
    metrics = run_dir / METRICS
    remedy = "give the directory of a run that has trained (python -m pipeline pretrain … --run DIRECTORY)"
    if not metrics.is_file():
        raise ValueError(f"{run_dir}: no {METRICS} there; {remedy}")
    train, evaluations = read_metrics(metrics)
    if not train and not evaluations:
        raise ValueError(f"{metrics}: no records yet; {remedy}, or wait for its first log line")
    paths = {name: run_dir / f"{name}.json" for name in ("config", "ds_config", "versions", "summary", "guesses", "start")}
    documents = {name: read_object(path) if path.is_file() else {} for name, path in paths.items()}
    made_from = documents.pop("config")
    config = made_from.pop("config", {})
    if not isinstance(config, dict):
        raise ValueError(f"{run_dir}/config.json: config is {config!r}, expected an object; restore the file")
    return Run(run_dir.resolve().name, made_from, config, train=train, evaluations=evaluations, **documents)


def load_runs(run_dirs: Sequence[Path]) -> list[Run]:
    """`load_run` of each; where two directories have one name, the parent's name goes before it."""
    names = [run_dir.resolve().name for run_dir in run_dirs]
    runs = []
    for run_dir in run_dirs:
        run, path = load_run(run_dir), run_dir.resolve()
        name = f"{path.parent.name}/{path.name}" if names.count(run.name) > 1 else run.name
        runs.append(replace(run, name=name))
    return runs


def number(value: object) -> float:
    """A JSON value as a float; nan for anything that is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return math.nan
    return float(value)


def series(rows: Rows, key: str) -> tuple[Array, Array]:
    """(steps, values) of one key; nan where it is missing or not finite."""
    return np.array([row["step"] for row in rows], float), np.array([number(row.get(key)) for row in rows], float)


def newly_clipped(run: Run) -> tuple[Array, Array]:
    """(steps, how many steps were clipped since the record before), from the recorded fraction of all steps so far."""
    steps, fraction = series(run.train, "clipped_fraction")
    known = np.isfinite(fraction)
    clipped_steps = np.round(np.where(known, fraction, 0.0) * steps)[known]
    return steps[known], np.maximum(np.diff(clipped_steps, prepend=0.0), 0.0)


def unigram_entropy(run: Run) -> float:
    """Nats a token, from the summary or else the last evaluation that has it; nan if none has."""
    key = "heldout_unigram_entropy_nats"
    known = [value for value in series(run.evaluations, key)[1] if math.isfinite(value)]
    return number(run.summary.get(key, known[-1] if known else None))


def loss_by_frequency(run: Run) -> list[Mapping[str, Any]]:
    """The bins of the last evaluation, the most frequent pieces first, as pipeline.train.token_frequency.table has them; none
    of a run that is unfinished or older."""
    tables = [row.get("heldout_by_frequency") for row in (run.summary, *run.evaluations[-1:])]
    bins = next((table.get("bins") for table in tables if isinstance(table, dict)), None)
    return [row for row in bins if isinstance(row, dict)] if isinstance(bins, list) else []


def tokens_per_step(run: Run) -> float:
    """Tokens of one global batch; nan if the configuration does not say."""
    batch, data = run.config.get("batch") or {}, run.config.get("data") or {}
    return number(batch.get("global_sequences")) * number(data.get("seq_len"))
