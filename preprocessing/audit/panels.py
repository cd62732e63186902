"""Pictures of an audit's figures: each panel draws on given axes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from preprocessing.base.plots import BLUE, COUNT, GREY, ORANGE

Figures = Mapping[str, Any]


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
