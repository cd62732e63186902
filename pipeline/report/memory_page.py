"""The comparison as pictures: stacked bars by kind, with the measured sum as a mark; alone, and in a page of its own."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.memory.compare import Row, table, unit
from pipeline.memory.system import ACTIVATIONS, COPIES, GRADIENTS, KINDS, LOGITS, MASTERS, MOMENTS, PARAMETERS, WORKSPACE
from preprocessing.base import plots
from preprocessing.base.page import render
from preprocessing.base.plots import BLUE, COMPARE_COLOURS, GREEN, GREY, ORANGE, PURPLE, Picture

TEMPLATE = Path(__file__).parent / "templates" / "memory.html"
COLOURS = {
    PARAMETERS: BLUE,
    MASTERS: "#7fb0ee",
    GRADIENTS: GREEN,
    MOMENTS: ORANGE,
    COPIES: "#c4455f",
    ACTIVATIONS: GREY,
    LOGITS: PURPLE,
    WORKSPACE: COMPARE_COLOURS[-1],
}


def step_panel(ax: Axes, rows: Sequence[Row]) -> bool:
    """The peak of step(), in bytes a parameter: what no micro batch changes."""
    return _bars(ax, rows, "step", lambda row: row.prediction.parameters, "peak of step(), bytes a parameter")


def largest_panel(ax: Axes, rows: Sequence[Row]) -> bool:
    """The largest peak of a step: with the activations of this micro batch."""
    name, size = unit(rows)
    return _bars(ax, rows, None, lambda row: size, f"largest peak, {name}")


def _bars(ax: Axes, rows: Sequence[Row], moment: str | None, of: Callable[[Row], int], title: str) -> bool:
    names = [f"{row.system.name}, ZeRO {row.system.stage}" for row in rows]
    for at, row in enumerate(rows):
        peaks = row.prediction.peak
        kinds = peaks[moment] if moment else max(peaks.values(), key=lambda peak: sum(peak.values()))
        left = 0.0
        for kind in KINDS:
            width = kinds.get(kind, 0) / of(row)
            if width:
                ax.barh(at, width, left=left, color=COLOURS[kind], height=0.62)
                left += width
        if row.measurement:
            size = row.measurement.peak[moment] if moment else row.measurement.largest
            ax.plot([size / of(row)] * 2, [at - 0.42, at + 0.42], color=matplotlib.rcParams["text.color"], linewidth=2)
        ax.text(left, at, f" {left:.3g}", va="center")
    ax.set_yticks(range(len(rows)), names)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.margins(x=0.12)
    ax.set_title(title + (" (line: measured)" if any(row.measurement for row in rows) else ""))
    shown = [kind for kind in KINDS if any(row.prediction.peak[m].get(kind) for row in rows for m in row.prediction.peak)]
    patches = [matplotlib.patches.Patch(color=COLOURS[kind], label=kind) for kind in shown]
    ax.legend(handles=patches, ncols=3, loc="upper center", bbox_to_anchor=(0.3, -0.12))
    return bool(rows)


def write_png(rows: Sequence[Row], out: Path) -> None:
    """Both pictures in one file."""

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        step_panel(left, rows)
        largest_panel(right, rows)
        right.set_yticklabels([])
        right.get_legend().remove()

    plots.write_png(out, (11, 1.6 + 0.42 * len(rows)), draw)


def memory_pictures(rows: Sequence[Row], of_step: str, of_largest: str) -> list[Picture]:
    """Both, with their captions."""
    panels = (("memory_step", step_panel, of_step), ("memory_largest", largest_panel, of_largest))
    return plots.pictures((name, partial(panel, rows=rows), caption) for name, panel, caption in panels)


def html(rows: Sequence[Row]) -> str:
    """A self-contained page."""
    drawn = memory_pictures(
        rows,
        "The update itself: parameters, masters, gradients, moments and what the engine copies.",
        "The worst moment of a step, nearly always in the backward pass.",
    )
    return render(TEMPLATE, drawn=drawn, table=table(rows))
