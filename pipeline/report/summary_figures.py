"""The figures of a run's summary.json as a reader wants them: labelled, with their units, and what they mean."""

import json
import math
from dataclasses import dataclass

from pipeline.report.recorded_run import number


@dataclass(frozen=True)
class Figure:
    """What a key of the summary is. `unit` is "nats", "%", …; "h:m:s" is for seconds, "GiB" for bytes, "" for a bare number."""

    label: str
    unit: str
    meaning: str


# In the order of the table; other keys of a summary follow as they are.
FIGURES = {
    "recipe": Figure("Recipe", "", "the named experiment the run started from"),
    "started_from_checkpoint": Figure("Started from", "", "the checkpoint whose weights the run began with"),
    "started_from_step": Figure("Started from step", "", "the updates that those weights had behind them"),
    "started_from_manifest_sha256": Figure("Its manifest", "", "sha256, which says exactly which checkpoint it was"),
    "parameters": Figure("Parameters", "", "trained numbers, encoder and head together"),
    "steps": Figure("Steps", "", "updates of the weights"),
    "extended_from_steps": Figure("Extended from", "", "the lengths that the run had before it was made longer"),
    "tokens": Figure("Tokens", "", "positions of all batches together, repeats included"),
    "final_train_loss": Figure("Training loss", "nats", "mean over the last twentieth of the run"),
    "heldout_loss": Figure("Held-out loss", "nats", "per predicted token, on text the model never trained on"),
    "heldout_mask_loss": Figure(
        "Held-out loss on [MASK]", "nats", "only where the token was hidden, so that copying is no help"
    ),
    "heldout_visible_loss": Figure(
        "Held-out loss elsewhere", "nats", "where the token itself, or in half of the places a wrong one, stood in the input"
    ),
    "heldout_nsp_accuracy": Figure(
        "Held-out NSP accuracy",
        "%",
        "does the second sentence follow the first? Chance is 50%",
    ),
    "heldout_unigram_entropy_nats": Figure(
        "Unigram entropy",
        "nats",
        "the best loss that knows only how frequent tokens are",
    ),
    "heldout_unigram_cross_entropy_nats": Figure(
        "Unigram cross-entropy", "nats", "the same with the training text's frequencies"
    ),
    "param_norm": Figure("‖x‖ at the end", "", "norm of all scale invariant parameters as one vector"),
    "equilibrium_step": Figure("Equilibrium looked at", "step", "last logged step with the rate at half its peak or above"),
    "equilibrium_norm": Figure("Predicted ‖x‖ there", "", "where weight decay and gradient balance"),
    "equilibrium_param_norm": Figure("Measured ‖x‖ there", "", "near the prediction if the run was long enough"),
    "clipped_fraction": Figure(
        "Clipped steps",
        "%",
        "share of steps that the clip shortened; the SIBERT paper sees 1–1.5%",
    ),
    "skipped_steps": Figure("Skipped steps", "", "left out because a gradient was not finite"),
    "tokens_per_s": Figure("Throughput", "tokens/s", "all ranks together, median of the log lines"),
    "train_time_s": Figure("Training time", "h:m:s", "of the training steps alone: no evaluation, no checkpoint"),
    "peak_memory_bytes": Figure("Peak memory", "GiB", "of the first rank: its GPU's, or its resident set on a CPU"),
    "world_size": Figure("Ranks", "", "processes that trained together"),
    "seed": Figure("Seed", "", "everything random follows from it"),
}
NOT_FIGURES = {"versions", "heldout_by_frequency"}  # of a summary: shown elsewhere


def label(key: str) -> str:
    """What a reader calls a key of the summary."""
    return FIGURES[key].label if key in FIGURES else key.replace("_", " ")


def amount(key: str, value: object) -> str:
    """A value of the summary with its unit."""
    count = number(value)
    unit = FIGURES[key].unit if key in FIGURES else ""
    if not math.isfinite(count):
        return text(value)
    if unit == "%":
        return f"{100 * count:.2f}%"
    if unit == "GiB":
        return f"{count / 2**30:.2f} GiB"
    if unit == "h:m:s":
        minutes, seconds = divmod(round(count), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    digits = f"{count:,.0f}" if count == int(count) or count >= 10_000 else f"{count:.4g}"
    return f"{digits} {unit}".rstrip() if unit != "step" else f"step {digits}"


def text(value: object) -> str:
    """Any JSON value; a dash for what is missing."""
    if value is None or value == "":
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
