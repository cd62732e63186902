"""Pictures of a run, drawn from its directory alone: each panel is a function that draws on given axes.

A panel returns False, and is left out, where the run has nothing to show for it (AdamW has no clip threshold).
Missing and non-finite values are gaps in a curve.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from pipeline.run.metrics_file import METRICS, read_metrics
from preprocessing.base.json_file import read_object

Rows = Sequence[Mapping[str, Any]]
Array = np.ndarray[Any, Any]

# Mid tones: they read on white as well as on a dark page.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#3b7dd8", "#d9772b", "#2f9e6e", "#a05bbf", "#8a8f98"
COMPARE_COLOURS = (ORANGE, PURPLE, GREEN, "#c4455f", "#8c7a2e")
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "text.parse_math": False,  # a run may be called "$x"
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Run:
    """A run as its directory tells it. Documents that are not there are empty; `summary` is, of an unfinished run."""

    name: str
    made_from: dict[str, Any]  # of config.json: recipe, data, corpus_sha256
    config: dict[str, Any]  # of config.json: the RunConfig
    ds_config: dict[str, Any]
    versions: dict[str, Any]
    summary: dict[str, Any]
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
    paths = {name: run_dir / f"{name}.json" for name in ("config", "ds_config", "versions", "summary")}
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


def has(values: Array) -> bool:
    """Is there anything to draw?"""
    return bool(np.isfinite(values).any())


def smooth(values: Array, window: int) -> Array:
    """The mean of the `window` values around each (fewer at the ends), gaps left out."""
    finite = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(finite)])
    at = np.arange(len(values))
    first, last = np.maximum(at - window // 2, 0), np.minimum(at + (window - 1) // 2 + 1, len(values))
    total, count = total[last] - total[first], count[last] - count[first]
    return np.divide(total, count, out=np.full(len(values), math.nan), where=count > 0)


def newly_clipped(run: Run) -> tuple[Array, Array]:
    """(steps, how many steps were clipped since the record before), from the recorded fraction of all steps so far."""
    steps, fraction = series(run.train, "clipped_fraction")
    known = np.isfinite(fraction)
    clipped_steps = np.round(np.where(known, fraction, 0.0) * steps)[known]
    return steps[known], np.maximum(np.diff(clipped_steps, prepend=0.0), 0.0)


def loss_panel(ax: Axes, run: Run, compare: Sequence[Run] = ()) -> bool:
    """Loss on training text and on held-out text, above the entropy of the unigrams as a yardstick."""
    runs = [run, *compare]
    per_step = [tokens_per_step(r) for r in runs]
    by_tokens = len(set(per_step)) > 1 and all(math.isfinite(tokens) for tokens in per_step)
    scales = [tokens / 1e6 for tokens in per_step] if by_tokens else [1.0] * len(runs)
    _steps_axis(ax, "million tokens" if by_tokens else "step")
    drawn = _train_loss(ax, run, scales[0])
    label = f"held-out, {run.name}" if compare else "held-out"
    drawn |= _curve(ax, run.evaluations, "heldout_loss", scales[0], color=BLUE, label=label, marker=".")
    if not compare:
        label = "held-out, on [MASK]"
        drawn |= _curve(ax, run.evaluations, "heldout_mask_loss", scales[0], color=GREEN, label=label, marker=".")
    for other, scale, colour in zip(compare, scales[1:], _cycle(len(compare)), strict=True):
        label = f"held-out, {other.name}"
        drawn |= _curve(ax, other.evaluations, "heldout_loss", scale, color=colour, label=label, marker=".")
    entropy = unigram_entropy(run)
    if drawn and math.isfinite(entropy):
        ax.axhline(entropy, color=GREY, linestyle="--", linewidth=1.2, label="unigram entropy")
    ax.set(title="Loss", ylabel="nats per predicted token")
    return _finish(ax, drawn)


def param_norm_panel(ax: Axes, run: Run) -> bool:
    """‖x‖ of the encoder and the norm it should settle at."""
    _, norm = series(run.train, "param_norm")
    drawn = _curve(ax, run.train, "param_norm", color=BLUE, label="‖x‖")
    if drawn:
        _curve(ax, run.train, "equilibrium_norm", color=ORANGE, linestyle="--", label="predicted equilibrium")
        ax.set_ylim(0, max(1.4 * np.nanmax(norm), 1e-12))  # the first predictions may be far off
    ax.set(title="Weight norm ‖x‖", ylabel="‖x‖")
    _steps_axis(ax)
    return _finish(ax, drawn)


def gradient_panel(ax: Axes, run: Run) -> bool:
    """‖g‖ and the clip threshold on a logarithmic axis; a tick at the bottom where a step was clipped."""
    drawn = _curve(ax, run.train, "grad_norm", color=BLUE, label="‖g‖", positive=True, linewidth=0.9)
    if drawn:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
        rows, key = run.train, "clip_threshold"
        relative = _curve(ax, rows, key, positive=True, color=ORANGE, label="clip threshold", linestyle="--")
        steps, clipped = newly_clipped(run)
        where = steps[clipped > 0]
        if relative and len(where):
            foot = ax.get_xaxis_transform()
            ax.plot(where, np.full(len(where), 0.02), "|", transform=foot, color=PURPLE, label="clipped", markersize=7)
    ax.set(title="Gradient norm ‖g‖", ylabel="‖g‖, log scale")
    _steps_axis(ax)
    return _finish(ax, drawn)


def clip_panel(ax: Axes, run: Run) -> bool:
    """Share of clipped steps: bars for each twentieth of the run, a line since the start."""
    steps, clipped = newly_clipped(run)
    if not len(steps) or not has(series(run.train, "clip_threshold")[1]):
        return _finish(ax, False)
    edges = np.linspace(0, max(steps[-1], 1), min(20, len(steps)) + 1)
    share = np.histogram(steps, edges, weights=clipped)[0] / np.diff(edges)
    ax.bar(edges[:-1], 100 * share, np.diff(edges), align="edge", color=PURPLE, alpha=0.45, label="each part of the run")
    _, so_far = series(run.train, "clipped_fraction")
    ax.plot(steps, 100 * so_far[np.isfinite(so_far)], color=PURPLE, label="since the start")
    ax.set(title="Clipped steps", ylabel="% of steps")
    ax.set_ylim(0, max(1.0, ax.get_ylim()[1]))
    _steps_axis(ax)
    return _finish(ax, True)


def learning_rate_panel(ax: Axes, run: Run) -> bool:
    """The learning rates of the encoder and of the head."""
    drawn = _curve(ax, run.train, "lr", color=BLUE, label="encoder")
    drawn |= _curve(ax, run.train, "head_lr", color=ORANGE, label="head", linestyle="--")
    ax.set(title="Learning rates", ylabel="learning rate")
    if drawn:
        ax.set_ylim(bottom=0)
    _steps_axis(ax)
    return _finish(ax, drawn)


def throughput_panel(ax: Axes, run: Run) -> bool:
    """Tokens a second, all ranks together."""
    drawn = _curve(ax, run.train, "tokens_per_s", color=BLUE, label="tokens per second")
    ax.set(title="Throughput", ylabel="tokens per second")
    if drawn:
        ax.set_ylim(bottom=0)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    _steps_axis(ax)
    return _finish(ax, drawn)


def unigram_entropy(run: Run) -> float:
    """Nats a token, from the summary or else the last evaluation that has it; nan if none has."""
    key = "heldout_unigram_entropy_nats"
    known = [value for value in series(run.evaluations, key)[1] if math.isfinite(value)]
    return number(run.summary.get(key, known[-1] if known else None))


def tokens_per_step(run: Run) -> float:
    """Tokens of one global batch; nan if the configuration does not say."""
    batch, data = run.config.get("batch") or {}, run.config.get("data") or {}
    return number(batch.get("global_sequences")) * number(data.get("seq_len"))


def write_curve_png(run_dir: Path, out: Path, compare: Sequence[Path] = ()) -> Path:
    """The README's picture: the loss curves, and beside them the weight norm (if the run recorded it)."""
    run, *others = load_runs([run_dir, *compare])
    with matplotlib.rc_context(STYLE | {"figure.facecolor": "white", "savefig.facecolor": "white"}):
        figure = Figure(figsize=(10, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        loss_panel(left, run, others)
        if not param_norm_panel(right, run):
            right.remove()
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, format="png", dpi=150)
    return out


def draw_svg(panel: Callable[[Axes], bool], ink: str) -> str | None:
    """One panel as an SVG document with axes and text in the colour `ink`; None if the panel has nothing to show."""
    inks = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    salt = f"sibert {getattr(panel, '__name__', panel)}"
    with matplotlib.rc_context(STYLE | dict.fromkeys(inks, ink) | {"svg.hashsalt": salt}):
        figure = Figure(figsize=(5.4, 3.3), layout="constrained")
        if not panel(figure.subplots()):
            return None
        buffer = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
        return buffer.getvalue()


def _cycle(count: int) -> list[str]:
    return [COMPARE_COLOURS[i % len(COMPARE_COLOURS)] for i in range(count)]


def _train_loss(ax: Axes, run: Run, scale: float) -> bool:
    steps, values = series(run.train, "loss")
    if not has(values):
        return False
    window = max(1, len(steps) // 40)
    if window > 1:
        ax.plot(steps * scale, values, color=GREY, alpha=0.35, linewidth=0.7)
    ax.plot(steps * scale, smooth(values, window), color=GREY, linewidth=1.2, label="training")
    return True


def _curve(ax: Axes, rows: Rows, key: str, scale: float = 1.0, positive: bool = False, **style: Any) -> bool:
    steps, values = series(rows, key)
    if positive:
        values = np.where(values > 0, values, math.nan)
    if not has(values):
        return False
    ax.plot(steps * scale, values, **style)
    return True


def _steps_axis(ax: Axes, label: str = "step") -> None:
    ax.set_xlabel(label)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def _finish(ax: Axes, drawn: bool) -> bool:
    if drawn and len(ax.get_legend_handles_labels()[0]) > 1:
        ax.legend(loc="best")
    return drawn
