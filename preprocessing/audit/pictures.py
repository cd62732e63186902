"""Pictures of an audit's figures as SVG: each panel draws on given axes; its ink is the page's text colour."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

Figures = Mapping[str, Any]

# Mid tones: they read on white as well as on a dark page. The same as in the report of a run.
BLUE, ORANGE, GREY = "#3b7dd8", "#d9772b", "#8a8f98"
INK = "#010203"  # drawn in this colour, then handed to the page's text colour, dark or light
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "text.parse_math": False,  # a source may be called "$x"
    "svg.fonttype": "none",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}
COUNT = FuncFormatter(lambda value, _: f"{value:,.0f}" if value == int(value) else f"{value:g}")


def document_panel(ax: Axes, figures: Figures) -> None:
    """How long documents are."""
    _lengths(ax, figures["document_tokens"], "Document length", "documents")


def sentence_panel(ax: Axes, figures: Figures) -> None:
    """How long sentences are."""
    _lengths(ax, figures["sentence_tokens"], "Sentence length", "sentences")


def _lengths(ax: Axes, found: Figures, title: str, what: str) -> None:
    edges, counts = np.array(found["bin_edges"], float), found["bin_counts"]
    ax.bar(edges[:-1], counts, np.diff(edges), align="edge", color=BLUE, alpha=0.6, edgecolor=BLUE, linewidth=0.5)
    median = found["quantiles"]["0.5"]
    ax.axvline(median, color=ORANGE, linestyle="--", linewidth=1.2, label=f"median {median:,}")
    ax.set_xscale("log")
    ax.set(title=title, xlabel="tokens, log scale", ylabel=what)
    ax.xaxis.set_major_formatter(COUNT)
    ax.yaxis.set_major_formatter(COUNT)
    ax.legend(loc="best")


def frequency_panel(ax: Axes, figures: Figures) -> None:
    """Rank and frequency of the ordinary pieces, beside Zipf's law through the tenth."""
    found = figures["token_frequency"]
    ranks, counts = np.array(found["ranks"], float), np.array(found["counts"], float)
    ax.plot(ranks, counts, color=BLUE, label="pieces")
    at = min(len(ranks) - 1, int(np.searchsorted(ranks, 10)))
    ax.plot(ranks, counts[at] * ranks[at] / ranks, color=GREY, linestyle="--", linewidth=1, label="1 / rank")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set(title="Frequency of pieces", xlabel="rank, log scale", ylabel="occurrences, log scale")
    ax.xaxis.set_major_formatter(COUNT)
    ax.yaxis.set_major_formatter(COUNT)
    ax.legend(loc="best")


def source_panel(ax: Axes, figures: Figures) -> None:
    """Shares of the sources, in stored tokens and in what an epoch reads."""
    names = list(figures["sources"])
    place = np.arange(len(names))
    for offset, key, colour, label in (
        (-0.2, "token_share", GREY, "of the train tokens"),
        (0.2, "sample_share", BLUE, "of an epoch's samples"),
    ):
        ax.barh(place + offset, [100 * figures["sources"][n][key] for n in names], 0.38, color=colour, label=label)
    ax.set_yticks(place, [name if len(name) <= 24 else name[:23] + "…" for name in names])
    ax.invert_yaxis()
    ax.set(title="Sources", xlabel="%")
    ax.legend(loc="best")


def position_panel(ax: Axes, figures: Figures) -> None:
    """Predictions at each position of a sequence, and how many it should have."""
    found = figures["masking"]
    at = np.arange(1, len(found["position_counts"]) + 1)
    ax.plot(at, found["position_counts"], ".", color=BLUE, markersize=4, label="predicted")
    ax.plot(at, found["position_expected"], color=ORANGE, linewidth=1.2, label="expected")
    _around(ax, found["position_counts"])
    ax.set(title="Where predictions stand", xlabel="position in the sequence", ylabel="predictions")
    ax.legend(loc="best")


def drawn_panel(ax: Axes, figures: Figures) -> None:
    """Random tokens by ranges of ids, and how many each range should have."""
    found = figures["masking"]
    edges = np.linspace(0, figures["vocab_size"], len(found["drawn_bins"]) + 1)
    ax.stairs(found["drawn_bins"], edges, color=BLUE, fill=True, alpha=0.6, label="drawn")
    ax.stairs(found["drawn_expected"], edges, color=ORANGE, linewidth=1.2, baseline=None, label="expected")
    ax.set_ylim(0, 1.25 * max(1, *found["drawn_bins"]))  # room for the legend
    ax.set(title="Which ids are drawn as random tokens", xlabel="id", ylabel="draws")
    ax.xaxis.set_major_formatter(COUNT)
    ax.yaxis.set_major_formatter(COUNT)
    ax.legend(loc="upper right")


def _around(ax: Axes, values: Sequence[float]) -> None:
    """An axis on which differences are seen, and noise does not look like more than it is."""
    middle, reach = float(np.mean(values)), float(np.ptp(values))
    reach = max(reach, 0.1 * middle)
    ax.set_ylim(max(0.0, middle - reach), middle + reach)
    ax.yaxis.set_major_formatter(COUNT)


def draw_svg(panel: Callable[[Axes, Figures], None], figures: Figures) -> str:
    """One panel as an SVG element to stand in a page among others: no fixed size, no metadata, no ids that clash."""
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": f"audit {panel.__name__}"}):
        figure = Figure(figsize=(5.4, 3.3), layout="constrained")
        panel(figure.subplots(), figures)
        buffer = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    for size in ("width", "height"):
        svg = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", svg, count=1)
    return svg.replace(INK, "currentColor")
