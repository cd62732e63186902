"""RUN/report.html: one self-contained page about a run, made from its directory alone."""

import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from matplotlib.axes import Axes

from pipeline.init.measured import said
from pipeline.memory.compare import predicted_rows
from pipeline.report.expectation import Expectation, expectation
from pipeline.report.memory_page import memory_pictures
from pipeline.report.panels import (
    clip_panel,
    frequency_panel,
    gradient_panel,
    learning_rate_panel,
    loss_panel,
    param_norm_panel,
    throughput_panel,
)
from pipeline.report.recorded_run import Run, load_runs, number, unigram_entropy
from pipeline.report.sentences import sentences
from pipeline.report.summary_figures import FIGURES, NOT_FIGURES, amount, label, text
from pipeline.run.start_file import START_KEYS
from preprocessing.base.files import write_whole
from preprocessing.base.page import render
from preprocessing.base.plots import Panel, Picture, pictures

REPORT = "report.html"
TEMPLATE = Path(__file__).parent / "templates" / "run.html"

TILES = ("heldout_loss", "tokens", "clipped_fraction", "tokens_per_s", "train_time_s", "parameters")
RunPanel: TypeAlias = Callable[[Axes, Run], bool]
PANELS: tuple[tuple[RunPanel, str], ...] = (
    (
        param_norm_panel,
        "Decay shrinks the encoder's weights, steps grow them; they settle at the dashed line, which the rate moves.",
    ),
    (gradient_panel, "A step is shortened where ‖g‖ exceeds the threshold √(2Cλ/η)·‖x‖; ticks mark those steps."),
    (clip_panel, "How often the clip acted. Ordinary steps should pass untouched."),
    (learning_rate_panel, "As the schedule set them."),
    (throughput_panel, "All ranks together, between log lines."),
)


@dataclass(frozen=True)
class FigureRow:
    """A figure of the summary: its value in each of the runs, and what it means."""

    label: str
    values: Sequence[str]
    meaning: str


@dataclass(frozen=True)
class Headline:
    """The loss at the [MASK] positions, that of knowing only how frequent tokens are (None: unknown), nats a token, and
    what the recipe leads to expect of their difference."""

    loss: float
    entropy: float | None
    expected: Expectation | None


def write_report(run_dir: Path, compare: Sequence[Path] = (), out: Path | None = None) -> Path:
    """Write a page about this run, beside the runs in `compare`, and return its path: `out`, or RUN/report.html.

    ValueError if one of the directories has no metrics to draw. The page is replaced whole or not at all.
    """
    run, *others = load_runs([run_dir, *compare])
    command, versions = _versions(run)
    document = render(
        TEMPLATE,
        name=run.name,
        about=_about(run),
        beginning=_beginning(run),
        start=said(run.start) if run.start.keys() >= START_KEYS else None,
        unfinished=None if run.summary else _progress(run),
        headline=_headline(run),
        by_frequency=_by_frequency(run),
        sentences=sentences(run_dir, run.guesses),
        tiles=_tiles(run),
        pictures=_pictures(run, others),
        memory=_memory(run),
        others=[other.name for other in others],
        figures=_figures([run, *others]),
        configuration=_flat(run.made_from) | _flat(run.config),
        ds_config=json.dumps(run.ds_config, indent=2, ensure_ascii=False) if run.ds_config else None,
        command=command,
        versions=versions,
    )
    path = out or run_dir / REPORT
    try:
        write_whole(path, document.encode())
    except OSError as error:
        remedy = "--out FILE puts the page elsewhere" if out is None else "give another --out FILE"
        raise ValueError(f"{path}: {error.strerror}; {remedy}") from error
    return path


def _about(run: Run) -> list[str]:
    """Recipe and description, as far as they are known."""
    known = (run.summary.get("recipe") or run.made_from.get("recipe"), run.config.get("description"))
    return [str(words) for words in known if words]


def _beginning(run: Run) -> str | None:
    """Whose weights the run began with, if not its own."""
    record = run.made_from.get("started_from")
    return f"step {record.get('step')} of {record.get('checkpoint')}" if isinstance(record, dict) else None


def _progress(run: Run) -> str:
    """How far an unfinished run has come."""
    last = max(row["step"] for row in [*run.train, *run.evaluations])
    total = number((run.config.get("train") or {}).get("steps"))
    return f"{last:,}" + (f" of {total:,.0f}" if math.isfinite(total) else "")


def _headline(run: Run) -> Headline | None:
    """Of the [MASK] positions: the others show the token, or a wrong one, and so invite copying."""
    loss, entropy = number(run.summary.get("heldout_mask_loss")), unigram_entropy(run)
    if not math.isfinite(loss):
        return None
    return Headline(loss, entropy, expectation(run, entropy - loss)) if math.isfinite(entropy) else Headline(loss, None, None)


def _tiles(run: Run) -> list[tuple[str, str]]:
    """(amount, of what)."""
    tiles = []
    for key in TILES:
        if run.summary.get(key) is not None:
            digits, _, unit = amount(key, run.summary[key]).partition(" ")
            tiles.append((digits, f"{label(key)}, {unit}" if unit else label(key)))
    return tiles


def _pictures(run: Run, others: Sequence[Run]) -> list[Picture]:
    caption = "Held-out text was never trained on. Its loss counts visible tokens too, which can be copied."
    if math.isfinite(unigram_entropy(run)):
        caption += " On [MASK], below the dashed line means: the model uses context, not just frequency."
    loss = ("loss_panel", partial(loss_panel, run=run, compare=others), caption)
    return pictures([loss, *((panel.__name__, _of(run, panel), words) for panel, words in PANELS)])


def _by_frequency(run: Run) -> list[Picture]:
    caption = (
        "On [MASK]. Each bar is a like share of the text; the most frequent pieces at the left. Grey is what knowing only the "
        "frequencies gives: what the model is below it, it has from the context. Dots: where a token stood in the input."
    )
    return pictures([("frequency_panel", _of(run, frequency_panel), caption)])


def _of(run: Run, panel: RunPanel) -> Panel:
    return lambda axes: panel(axes, run)


def _memory(run: Run) -> list[Picture]:
    """The run's memory by kind beside AdamW's, predicted; nothing for runs whose mechanics are not predicted."""
    rows = predicted_rows(run.made_from, run.config, run.ds_config)
    if not rows:
        return []
    return memory_pictures(
        rows,
        "What a rank holds while the weights are updated, predicted: no micro batch changes it.",
        "The worst moment of a step, predicted: with the activations of this run's micro batch.",
    )


def _figures(runs: Sequence[Run]) -> list[FigureRow]:
    keys = [key for key in FIGURES if any(key in run.summary for run in runs)]
    keys += sorted({key for run in runs for key in run.summary} - set(FIGURES) - NOT_FIGURES)
    return [
        FigureRow(
            label(key),
            [amount(key, run.summary.get(key)) for run in runs],
            FIGURES[key].meaning if key in FIGURES else "",
        )
        for key in keys
    ]


def _versions(run: Run) -> tuple[str | None, dict[str, str]]:
    """The command that made the run, if it is known, and the versions of what it ran with."""
    nested = run.summary.get("versions")
    versions = {**(nested if isinstance(nested, dict) else {}), **run.versions}
    command = versions.pop("command", None) or versions.pop("argv", None)
    words = shlex.join(str(word) for word in command) if isinstance(command, list) else command
    return str(words) if words else None, _flat(versions)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested sections as one level of dotted keys, the values as text."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = text(value)
    return flat
