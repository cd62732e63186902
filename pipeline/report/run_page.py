"""RUN/report.html: one self-contained page about a run, made from its directory alone. No script, nothing fetched."""

import json
import math
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from pipeline.memory.compare import predicted_rows
from pipeline.report.memory_page import pictures
from pipeline.report.plots import (
    Run,
    clip_panel,
    draw_svg,
    gradient_panel,
    learning_rate_panel,
    load_runs,
    loss_panel,
    number,
    param_norm_panel,
    throughput_panel,
    unigram_entropy,
)
from preprocessing.base.page import INK, figure, page

REPORT = "report.html"

# Key of summary.json: label, unit, what it means. The order is the table's; other keys follow as they are.
FIGURES = {
    "recipe": ("Recipe", "", "the named experiment the run started from"),
    "parameters": ("Parameters", "", "trained numbers, encoder and head together"),
    "steps": ("Steps", "", "updates of the weights"),
    "tokens": ("Tokens", "", "positions of all batches together, repeats included"),
    "final_train_loss": ("Training loss", "nats", "mean over the last twentieth of the run"),
    "heldout_loss": ("Held-out loss", "nats", "per predicted token, on text the model never trained on"),
    "heldout_mask_loss": (
        "Held-out loss on [MASK]",
        "nats",
        "only where the token was hidden, so that copying is no help",
    ),
    "heldout_nsp_accuracy": ("Held-out NSP accuracy", "%", "does the second sentence follow the first? Chance is 50%"),
    "heldout_unigram_entropy_nats": (
        "Unigram entropy",
        "nats",
        "the best loss that knows only how frequent tokens are",
    ),
    "heldout_unigram_cross_entropy_nats": (
        "Unigram cross-entropy",
        "nats",
        "the same with the training text's frequencies",
    ),
    "param_norm": ("‖x‖ at the end", "", "norm of all scale invariant parameters as one vector"),
    "equilibrium_step": ("Equilibrium looked at", "step", "last logged step with the rate at half its peak or above"),
    "equilibrium_norm": ("Predicted ‖x‖ there", "", "where weight decay and gradient balance"),
    "equilibrium_param_norm": ("Measured ‖x‖ there", "", "near the prediction if the run was long enough"),
    "clipped_fraction": ("Clipped steps", "%", "share of steps that the clip shortened; the SIBERT paper sees 1–1.5%"),
    "skipped_steps": ("Skipped steps", "", "left out because a gradient was not finite"),
    "tokens_per_s": ("Throughput", "tokens/s", "all ranks together, median of the log lines"),
    "train_time_s": ("Training time", "h:m:s", "of the training steps alone: no evaluation, no checkpoint"),
    "peak_memory_bytes": ("Peak memory", "GiB", "of the first rank: its GPU's, or its resident set on a CPU"),
    "world_size": ("Ranks", "", "processes that trained together"),
    "seed": ("Seed", "", "everything random follows from it"),
}
PANELS: tuple[tuple[Callable[[Axes, Run], bool], str], ...] = (
    (
        param_norm_panel,
        "Decay shrinks the encoder's weights, steps grow them; they settle at the dashed line, which the rate moves.",
    ),
    (gradient_panel, "A step is shortened where ‖g‖ exceeds the threshold √(2Cλ/η)·‖x‖; ticks mark those steps."),
    (clip_panel, "How often the clip acted. Ordinary steps should pass untouched."),
    (learning_rate_panel, "As the schedule set them."),
    (throughput_panel, "All ranks together, between log lines."),
)


def write_report(run_dir: Path, compare: Sequence[Path] = ()) -> Path:
    """Write RUN/report.html about this run, beside the runs in `compare`, and return its path.

    ValueError if one of the directories has no metrics to draw. The page is replaced whole or not at all.
    """
    run, *others = load_runs([run_dir, *compare])
    sections = [
        _header(run),
        _pictures(run, others),
        _memory(run),
        _figures(run, others),
        _configuration(run),
        _versions(run),
    ]
    document = page(f"{run.name} · SIBERT pretraining", sections)
    path = run_dir / REPORT
    partial = path.with_suffix(".html.partial")
    partial.write_text(document, encoding="utf-8")
    os.replace(partial, path)
    return path


def _header(run: Run) -> str:
    parts = [f"<h1>{escape(run.name)}</h1>"]
    about = [run.summary.get("recipe") or run.made_from.get("recipe"), run.config.get("description")]
    if any(about):
        parts.append(f'<p class="soft">{escape(" · ".join(str(text) for text in about if text))}</p>')
    if not run.summary:
        last = max(row["step"] for row in [*run.train, *run.evaluations])
        total = number((run.config.get("train") or {}).get("steps"))
        of = f" of {total:,.0f}" if math.isfinite(total) else ""
        parts.append(
            f'<p class="notice"><b>This run is unfinished.</b> It has no summary.json; its last record is of step '
            f"{last:,}{of}. The final figures come when it ends; start it again to go on.</p>"
        )
    parts += [_headline(run), _tiles(run)]
    return "<header>\n" + "\n".join(part for part in parts if part) + "\n</header>"


def _headline(run: Run) -> str:
    """One sentence on the [MASK] positions: the others show the token, or a wrong one, and so invite copying."""
    loss, entropy = number(run.summary.get("heldout_mask_loss")), unigram_entropy(run)
    if not math.isfinite(loss):
        return ""
    text = f"It predicts the [MASK] positions of unseen text at a loss of <b>{loss:.3f} nats</b>"
    if math.isfinite(entropy):
        side = "below" if loss < entropy else "above"
        text += f", {abs(entropy - loss):.3f} {side} the {entropy:.3f} of knowing only how frequent each token is"
    return f'<p class="lead">{text}.</p>'


def _tiles(run: Run) -> str:
    keys = ("heldout_loss", "tokens", "clipped_fraction", "tokens_per_s", "train_time_s", "parameters")
    shown = [key for key in keys if run.summary.get(key) is not None]
    tiles = []
    for key in shown:
        amount, _, unit = _value(key, run.summary[key]).partition(" ")
        label = f"{_label(key)}, {unit}" if unit else _label(key)
        tiles.append(f'<div class="tile"><b>{amount}</b><span>{label}</span></div>')
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _pictures(run: Run, others: Sequence[Run]) -> str:
    def loss(ax: Axes) -> bool:
        return loss_panel(ax, run, others)

    caption = "Held-out text was never trained on. Its loss counts visible tokens too, which can be copied."
    if math.isfinite(unigram_entropy(run)):
        caption += " On [MASK], below the dashed line means: the model uses context, not just frequency."
    figures = [figure(draw_svg(loss, INK), caption)]
    for panel, text in PANELS:

        def draw(ax: Axes, panel: Callable[[Axes, Run], bool] = panel) -> bool:
            return panel(ax, run)

        draw.__name__ = panel.__name__
        figures.append(figure(draw_svg(draw, INK), text))
    drawn = [drawing for drawing in figures if drawing]
    return f'<h2>The run in pictures</h2>\n<div class="pictures">\n{"".join(drawn)}</div>' if drawn else ""


def _memory(run: Run) -> str:
    """The run's memory by kind beside AdamW's, predicted; nothing for runs whose mechanics are not predicted."""
    rows = predicted_rows(run.made_from, run.config, run.ds_config)
    if not rows:
        return ""
    drawn = pictures(
        rows,
        "What a rank holds while the weights are updated, predicted: no micro batch changes it.",
        "The worst moment of a step, predicted: with the activations of this run's micro batch.",
    )
    return f"<h2>Memory of a rank</h2>\n{drawn}"


def _figures(run: Run, others: Sequence[Run]) -> str:
    runs = [run, *others]
    keys = [key for key in FIGURES if any(key in r.summary for r in runs)]
    keys += sorted({key for r in runs for key in r.summary} - set(FIGURES) - {"versions"})
    if not keys:
        return ""
    heads = [escape(r.name) for r in runs] if others else ["value"]
    head = "<th></th>" + "".join(f"<th>{name}</th>" for name in heads) + ("" if others else "<th>meaning</th>")
    rows = []
    for key in keys:
        cells = "".join(f'<td class="value">{_value(key, r.summary.get(key))}</td>' for r in runs)
        why = "" if others else f'<td class="why">{escape(FIGURES[key][2]) if key in FIGURES else ""}</td>'
        rows.append(f"<tr><th>{_label(key)}</th>{cells}{why}</tr>")
    title = "Side by side" if others else "Final figures"
    kind = "" if others else ' class="figures"'
    return (
        f'<h2>{title}</h2>\n<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _configuration(run: Run) -> str:
    parts = ["<h2>Configuration</h2>"]
    if run.made_from or run.config:
        parts.append(_plain_table(_flat(run.made_from) | _flat(run.config)))
    else:
        parts.append('<p class="soft">config.json is not in the run directory.</p>')
    if run.ds_config:
        text = escape(json.dumps(run.ds_config, indent=2, ensure_ascii=False))
        parts.append(f"<details><summary>DeepSpeed configuration</summary><pre>{text}</pre></details>")
    return "\n".join(parts)


def _versions(run: Run) -> str:
    nested = run.summary.get("versions")
    versions = {**(nested if isinstance(nested, dict) else {}), **run.versions}
    command = versions.pop("command", None) or versions.pop("argv", None)
    text = shlex.join(str(word) for word in command) if isinstance(command, list) else command
    parts = ["<h2>How it was made</h2>"]
    if text:
        parts.append(f"<pre>{escape(str(text))}</pre>")
    if versions:
        parts.append(_plain_table(_flat(versions)))
    return "\n".join(parts) if len(parts) > 1 else ""


def _plain_table(values: Mapping[str, object]) -> str:
    rows = "".join(f"<tr><th>{escape(key)}</th><td>{_text(value)}</td></tr>" for key, value in values.items())
    return f'<div class="scroll"><table class="plain"><tbody>{rows}</tbody></table></div>'


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Nested sections as one level of dotted keys."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _label(key: str) -> str:
    return escape(FIGURES[key][0] if key in FIGURES else key.replace("_", " "))


def _value(key: str, value: object) -> str:
    """A figure of the summary with its unit, as HTML."""
    amount = number(value)
    unit = FIGURES[key][1] if key in FIGURES else ""
    if not math.isfinite(amount):
        return _text(value)
    if unit == "%":
        return f"{100 * amount:.2f}%"
    if unit == "GiB":
        return f"{amount / 2**30:.2f} GiB"
    if unit == "h:m:s":
        minutes, seconds = divmod(round(amount), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    text = f"{amount:,.0f}" if amount == int(amount) or amount >= 10_000 else f"{amount:.4g}"
    return f"{text} {unit}".rstrip() if unit != "step" else f"step {text}"


def _text(value: object) -> str:
    """Any JSON value as HTML; a dash for what is missing."""
    if value is None or value == "":
        return "–"
    return escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
