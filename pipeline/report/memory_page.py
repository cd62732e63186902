"""The comparison as pictures: stacked bars by kind, with the measured sum as a mark; alone, and in a page of its own."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.memory.compare import Row, table, unit
from pipeline.memory.system import ACTIVATIONS, COPIES, GRADIENTS, KINDS, LOGITS, MASTERS, MOMENTS, PARAMETERS, WORKSPACE
from pipeline.report.plots import BLUE, COMPARE_COLOURS, GREEN, GREY, ORANGE, PURPLE, STYLE, draw_svg
from preprocessing.base.page import INK, figure, page

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
    with matplotlib.rc_context(STYLE):
        drawing = Figure(figsize=(11, 1.6 + 0.42 * len(rows)), layout="constrained")
        left, right = drawing.subplots(1, 2)
        step_panel(left, rows)
        largest_panel(right, rows)
        right.set_yticklabels([])
        right.get_legend().remove()
        drawing.savefig(out, format="png", dpi=150)


def pictures(rows: Sequence[Row], of_step: str, of_largest: str) -> str:
    """Both, with their captions, as a part of a page."""

    def step(ax: Axes) -> bool:
        return step_panel(ax, rows)

    def largest(ax: Axes) -> bool:
        return largest_panel(ax, rows)

    drawn = figure(draw_svg(step, INK), of_step) + figure(draw_svg(largest, INK), of_largest)
    return f'<div class="pictures">\n{drawn}</div>'


def html(rows: Sequence[Row]) -> str:
    """A self-contained page."""
    sections = [
        "<h1>Memory of a rank</h1>",
        pictures(
            rows,
            "The update itself: parameters, masters, gradients, moments and what the engine copies.",
            "The worst moment of a step, nearly always in the backward pass.",
        ),
        f'<div class="scroll"><pre>{escape(table(rows))}</pre></div>',
    ]
    return page("Memory · SIBERT pretraining", sections)
