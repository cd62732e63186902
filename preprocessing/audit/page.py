"""An audit as one self-contained HTML page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from matplotlib.axes import Axes

from preprocessing.audit.audit import Audit
from preprocessing.audit.panels import (
    document_panel,
    drawn_panel,
    frequency_panel,
    position_panel,
    sentence_panel,
    source_panel,
)
from preprocessing.audit.stream import left_out_lines
from preprocessing.base.page import render
from preprocessing.base.plots import Panel, pictures

AuditPanel: TypeAlias = Callable[[Axes, Mapping[str, Any]], None]

TEMPLATE = Path(__file__).parent / "templates" / "audit.html"

# What a panel draws from (it is left out where the corpus could not be read so far), the panel, its caption.
PANELS: tuple[tuple[str, AuditPanel, str], ...] = (
    ("document_tokens", document_panel, "With [SEP]. Bins are half octaves."),
    ("sentence_tokens", sentence_panel, "What a next sentence pair is cut from."),
    ("token_frequency", frequency_panel, "Over both splits. Natural text runs along the dashed line for a while."),
    ("sources", source_panel, "They differ where an epoch reads a source more or less than once."),
    ("masking", position_panel, "Each ordinary position should be predicted as often as any other."),
    ("masking", drawn_panel, "A tenth of the predicted positions show a token drawn from the whole vocabulary."),
)


@dataclass(frozen=True)
class Table:
    """Of text: a heading for each column, the names' included, and each row's name with its cells."""

    head: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]


def page(found: Audit) -> str:
    """The page: verdict, checks, pictures, tables, documents beside their source text."""
    figures = found.figures
    shown = ((needs, panel, caption) for needs, panel, caption in PANELS if figures.get(needs))
    return render(
        TEMPLATE,
        directory=figures["directory"],
        checks=found.checks,
        failed=[check.name for check in found.checks if not check.passed],
        amounts=_amounts(figures),
        drawn=pictures((panel.__name__, _of(figures, panel), caption) for _, panel, caption in shown),
        sources=_sources(figures),
        left_out=left_out_lines(figures.get("left_out", {})),
        lengths=_lengths(figures),
        frequency=figures.get("token_frequency"),
        samples=figures.get("samples"),
    )


def _of(figures: Mapping[str, Any], panel: AuditPanel) -> Panel:
    return lambda axes: panel(axes, figures)


def _amounts(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The first figures to look at: (amount, of what)."""
    splits = figures.get("splits", {})
    shown = {f"{what}, {split}": row[what] for split, row in splits.items() for what in ("documents", "tokens")}
    shown["pieces"] = figures["vocab_size"]
    if masking := figures.get("masking"):
        shown["predictions looked at"] = masking["predictions"]
    return [(f"{amount:,}", what) for what, amount in shown.items()]


def _sources(figures: Mapping[str, Any]) -> Table | None:
    if not (sources := figures.get("sources")):
        return None
    columns = list(next(iter(sources.values())))
    rows = [(name, [_cell(column, row[column]) for column in columns]) for name, row in sources.items()]
    return Table(["", *(column.replace("_", " ") for column in columns)], rows)


def _lengths(figures: Mapping[str, Any]) -> Table | None:
    lengths = {"document": figures.get("document_tokens"), "sentence": figures.get("sentence_tokens")}
    rows = [(f"tokens of a {what}", _quantiles(found)) for what, found in lengths.items() if found]
    if not rows:
        return None
    quantiles = [f"{float(q):.0%}" for q in figures["document_tokens"]["quantiles"]]
    return Table(["", "count", "mean", "lowest", *quantiles, "highest"], rows)


def _quantiles(found: Mapping[str, Any]) -> list[str]:
    whole = [found["lowest"], *found["quantiles"].values(), found["highest"]]
    return [f"{found['count']:,}", f"{found['mean']:,.1f}", *(f"{value:,}" for value in whole)]


def _cell(column: str, value: float) -> str:
    if column.endswith("share"):
        return f"{value:.2%}"
    return f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:.4g}"
