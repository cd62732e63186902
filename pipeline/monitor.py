"""What a run tells while it runs: metrics.jsonl, TensorBoard and the console. Only rank 0 has a Monitor.

A record is a flat dict with `step`, the steps done so far. The keys with a meaning of their own are those of TRAIN_TAGS
and EVAL_TAGS; any other number goes to TensorBoard under other/. clipped_fraction is of all steps so far.
"""

import json
import math
import numbers
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm  # type: ignore[import-untyped]

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
KINDS = ("train", "eval")

TRAIN_TAGS = {
    "loss": "loss/train",
    "lr": "learning_rate/encoder",
    "head_lr": "learning_rate/head",
    "param_norm": "norm/param",
    "equilibrium_norm": "norm/param_equilibrium",
    "grad_norm": "norm/gradient",
    "param_grad_cosine": "invariance/param_grad_cosine",
    "clip_threshold": "clip/threshold",
    "clip_coefficient": "clip/coefficient",
    "clipped_fraction": "clip/fraction",
    "effective_lr": "learning_rate/effective",
    "skipped_steps": "progress/skipped_steps",
    "tokens": "progress/tokens",
    "tokens_per_s": "progress/tokens_per_s",
    "memory_bytes": "progress/memory_bytes",
}
EVAL_TAGS = {
    "heldout_loss": "loss/heldout",
    "heldout_mask_loss": "loss/heldout_mask",
    "heldout_nsp_accuracy": "accuracy/heldout_nsp",
    "heldout_unigram_entropy_nats": "loss/heldout_unigram_entropy",
}
UNPLOTTED = {"kind", "step", "attempt", "clipped", "skipped", "time_s"}

# Console columns: key, heading, width, format.
COLUMNS = (
    ("loss", "loss", 8, ".4f"),
    ("lr", "lr", 10, ".3g"),
    ("param_norm", "‖x‖", 9, ".4g"),
    ("grad_norm", "‖g‖", 9, ".3g"),
    ("clip_threshold", "threshold", 10, ".3g"),
    ("clipped_fraction", "clipped", 8, ".1%"),
    ("tokens_per_s", "tokens/s", 10, ",.0f"),
)
LINES_PER_RUN = 20
LONGEST_SILENCE_S = 60.0
SHORTEST_SILENCE_S = 2.0


class Monitor:
    """Writes each record to RUN/metrics.jsonl and RUN/tensorboard, and some of them to the console.

    total_steps: the length of the whole run. attempt: counts the starts from a checkpoint, written into every record.
    first_step: the steps already done when this attempt starts (0 for a new run); TensorBoard then drops what an
    earlier attempt wrote after it. interactive: a progress bar (True) or plain lines (False); None asks the terminal.
    """

    def __init__(
        self, run_dir: Path, total_steps: int, attempt: int, interactive: bool | None = None, first_step: int = 0
    ) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        path = run_dir / METRICS
        _drop_torn_line(path)
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(run_dir / TENSORBOARD), purge_step=first_step + 1, flush_secs=10)
        self._total_steps, self._attempt, self._first_step = total_steps, attempt, first_step
        self._started_s = time.monotonic()
        self._last_line_s = -math.inf
        self._last_line_step: int | None = None
        if interactive is None:
            interactive = sys.stdout.isatty()
        self._bar: Any = None
        if interactive:
            self._bar = tqdm(
                total=total_steps, initial=first_step, unit="step", file=sys.stdout, dynamic_ncols=True, mininterval=0.5
            )

    def train(self, record: Mapping[str, object]) -> None:
        """A record of training at record["step"]: written always, shown as often as a reader can follow."""
        step = self._write("train", record, TRAIN_TAGS)
        if self._bar is not None:
            self._bar.n = min(step, self._total_steps)
            cells = [f"{heading} {_cell(record, key, form)}" for key, heading, _, form in COLUMNS[:-1]]
            self._bar.set_postfix_str("  ".join(cells), refresh=False)
            self._bar.update(0)
            if step >= self._total_steps:
                self._bar.refresh()
        elif self._is_due(step):
            self._show_line(step, record)

    def evaluate(self, record: Mapping[str, object]) -> None:
        """A record of an evaluation on held-out text after record["step"] steps: written and shown."""
        step = self._write("eval", record, EVAL_TAGS)
        text = f"held-out at step {step:,}: loss {_cell(record, 'heldout_loss', '.4f')}"
        if "heldout_mask_loss" in record:
            text += f", on [MASK] {_cell(record, 'heldout_mask_loss', '.4f')}"
        if "heldout_unigram_entropy_nats" in record:
            text += f" (unigram entropy {_cell(record, 'heldout_unigram_entropy_nats', '.4f')})"
        self.message(text)

    def message(self, text: str) -> None:
        """A line for the reader that leaves the progress bar whole."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stdout)
        else:
            print(text, flush=True)

    def close(self) -> None:
        """Everything is on disk afterwards. Closing twice is fine."""
        if self._bar is not None:
            self._bar.close()
        self._file.close()
        self._board.close()

    def _write(self, kind: str, record: Mapping[str, object], tags: Mapping[str, str]) -> int:
        row = {"kind": kind, "attempt": self._attempt} | {key: _plain(value) for key, value in record.items()}
        step = row.get("step")
        if not isinstance(step, int) or isinstance(step, bool):
            raise ValueError(f"a {kind} record needs an integer `step`, got {step!r}")
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        for key, value in row.items():
            if key not in UNPLOTTED and isinstance(value, (int, float)):
                self._board.add_scalar(tags.get(key, f"other/{kind}_{key}"), value, step)
        return step

    def _is_due(self, step: int) -> bool:
        """First, last, then each twentieth of the run or each minute, whichever is sooner, but never in a rush."""
        if self._last_line_step is None or step >= self._total_steps:
            return True
        silence_s = time.monotonic() - self._last_line_s
        a_part_done = step - self._last_line_step >= self._total_steps / LINES_PER_RUN
        return silence_s >= SHORTEST_SILENCE_S and (a_part_done or silence_s >= LONGEST_SILENCE_S)

    def _show_line(self, step: int, record: Mapping[str, object]) -> None:
        now_s = time.monotonic()
        step_width = len(f"{self._total_steps:,}") + 1
        if self._last_line_step is None:
            headings = "".join(f"{heading:>{width}}" for _, heading, width, _ in COLUMNS)
            self.message(f"{'step':>{step_width}}{headings}{'ETA':>9}")
        done = step - self._first_step
        left_s = (now_s - self._started_s) / done * (self._total_steps - step) if done > 0 else math.nan
        cells = "".join(f"{_cell(record, key, form):>{width}}" for key, _, width, form in COLUMNS)
        self.message(f"{step:>{step_width},}{cells}{_duration(left_s):>9}")
        self._last_line_s, self._last_line_step = now_s, step


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The (train, eval) rows of a metrics.jsonl, each sorted by step; of a repeated step the later line counts.

    A last line without its newline is what a kill in mid-write leaves: it is ignored unless it is whole. Any other
    broken line is a ValueError naming file and line. A missing file is the FileNotFoundError it is.
    """
    lines = path.read_bytes().split(b"\n")
    rows: dict[str, dict[int, dict[str, Any]]] = {kind: {} for kind in KINDS}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _parse(line)
        if row is not None:
            rows[row["kind"]][row["step"]] = row
        elif number < len(lines):
            raise ValueError(
                f"{path}, line {number}: not a metrics record (expected a JSON object with kind "
                f"{' or '.join(KINDS)} and an integer step, got {line[:60]!r}); remove that line to read the rest"
            )
    train, evaluation = ([rows[kind][step] for step in sorted(rows[kind])] for kind in KINDS)
    return train, evaluation


def _parse(line: bytes) -> dict[str, Any] | None:
    """The record in this line, None if it is not one."""
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
    except ValueError:  # JSONDecodeError and UnicodeDecodeError among them
        return None
    is_record = isinstance(row, dict) and row.get("kind") in KINDS and type(row.get("step")) is int
    return row if is_record else None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not strict JSON")


def _drop_torn_line(path: Path) -> None:
    """Let the file end with a newline: complete its last line if that is a whole record, else cut the fragment off."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        whole, _, last = content.rpartition(b"\n")
        if last and _parse(last) is not None:
            file.write(b"\n")
        elif last:
            file.truncate(len(content) - len(last))


def _plain(value: object) -> object:
    """A value for strict JSON: numpy and torch scalars as Python's, non-finite numbers as null."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if value is not None and not isinstance(value, (str, int, float)) and hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(record: Mapping[str, object], key: str, form: str) -> str:
    """A number of the record for the console; a dash where there is none."""
    value = record.get(key)
    value = value.item() if hasattr(value, "item") else value
    return format(float(value), form) if isinstance(value, numbers.Real) else "–"


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "–"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}"
