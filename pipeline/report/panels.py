"""Pictures of a run: each panel is a function that draws on given axes.

A panel returns False, and is left out, where the run has nothing to show for it (AdamW has no clip threshold).
Missing and non-finite values are gaps in a curve.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from pipeline.report.recorded_run import (
    Array,
    Rows,
    Run,
    load_runs,
    loss_by_frequency,
    newly_clipped,
    number,
    series,
    tokens_per_step,
    unigram_entropy,
)
from preprocessing.base.plots import BLUE, COMPARE_COLOURS, GREEN, GREY, ORANGE, PURPLE, write_png


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


def frequency_panel(ax: Axes, run: Run) -> bool:
    """Held-out loss by how often a piece stands in the training text, beside what the unigram model gives."""
    bins = loss_by_frequency(run)
    mask, unigram, visible = (
        np.array([number(row[shown].get(key)) if isinstance(row.get(shown), dict) else math.nan for row in bins])
        for shown, key in (("mask", "loss"), ("mask", "unigram_loss"), ("visible", "loss"))
    )
    drawn = has(mask)
    if drawn:
        at = np.arange(len(bins))
        ax.bar(at, unigram, 0.8, color=GREY, alpha=0.35, label="frequencies alone")
        ax.bar(at, mask, 0.55, color=GREEN, label="model, on [MASK]")
        ax.plot(at, visible, "o", color=BLUE, markersize=4, label="model, token or a wrong one visible")
        ax.set_xticks(at, [_count(number(row.get("fewest"))) for row in bins])
        ax.grid(axis="x", visible=False)
    ax.set(title="Held-out loss by token frequency", ylabel="nats per predicted token")
    ax.set_xlabel("at least so often in the training text")
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


def write_curve_png(run_dir: Path, out: Path, compare: Sequence[Path] = ()) -> Path:
    """The README's picture: the loss curves, and beside them the weight norm (if the run recorded it)."""
    run, *others = load_runs([run_dir, *compare])

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        loss_panel(left, run, others)
        if not param_norm_panel(right, run):
            right.remove()

    out.parent.mkdir(parents=True, exist_ok=True)
    write_png(out, (10, 3.8), draw)
    return out


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


def _count(count: float) -> str:
    """As short as a tick must be: 39, 1.1k, 22k, 3.4M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.2g}{unit}" if count < 100 * size else f"{count / size:.0f}{unit}"
    return f"{count:g}" if math.isfinite(count) else "?"


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
