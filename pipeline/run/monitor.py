"""What a run reports while it runs: metrics.jsonl, TensorBoard and the console. Only rank 0 has a Monitor.

A record is a flat dict with `step`, the steps done so far. The keys with a meaning of their own are those of TRAIN_TAGS
and EVAL_TAGS; any other number goes to TensorBoard under other/. clipped_fraction is of all steps so far.

metrics.jsonl has every record. No failure of the three ends a run that has started: metrics.jsonl catches up after an outage
(metrics_file.py), the run goes on without TensorBoard from its first failure on, the console misses lines.
"""

import contextlib
import json
import math
import numbers
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm  # type: ignore[import-untyped]

from pipeline.run.metrics_file import METRICS, MetricsFile

TENSORBOARD = "tensorboard"

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
    "heldout_visible_loss": "loss/heldout_visible",
    "heldout_nsp_accuracy": "accuracy/heldout_nsp",
    "heldout_unigram_entropy_nats": "loss/heldout_unigram_entropy",
}
TAGS = {"train": TRAIN_TAGS, "eval": EVAL_TAGS}
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
    position: what position() was at the checkpoint that this attempt goes on from. OSError if the run cannot be written
    to now; later it is an alarm.
    """

    def __init__(
        self,
        run_dir: Path,
        total_steps: int,
        attempt: int,
        interactive: bool | None = None,
        first_step: int = 0,
        position: int | None = None,
    ) -> None:
        self._bar: Any = None
        run_dir.mkdir(parents=True, exist_ok=True)
        self._metrics = MetricsFile(run_dir / METRICS, self.message, position)
        self._board: SummaryWriter | None = SummaryWriter(str(run_dir / TENSORBOARD), purge_step=first_step + 1, flush_secs=10)
        self._total_steps, self._attempt, self._first_step, self._plotted_step = total_steps, attempt, first_step, first_step
        self._started_s = time.monotonic()
        self._last_line_s = -math.inf
        self._last_line_step: int | None = None
        if interactive is None:
            interactive = sys.stdout.isatty()
        if interactive:
            self._bar = tqdm(
                total=total_steps, initial=first_step, unit="step", file=sys.stdout, dynamic_ncols=True, mininterval=0.5
            )

    def train(self, record: Mapping[str, object]) -> None:
        """A record of training at record["step"]: written always, shown as often as a reader can follow."""
        step = self._write("train", record)
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
        step = self._write("eval", record)
        text = f"held-out at step {step:,}: loss {_cell(record, 'heldout_loss', '.4f')}"
        if "heldout_mask_loss" in record:
            text += f", on [MASK] {_cell(record, 'heldout_mask_loss', '.4f')}"
        if "heldout_unigram_entropy_nats" in record:
            text += f" (unigram entropy {_cell(record, 'heldout_unigram_entropy_nats', '.4f')})"
        self.message(text)

    def message(self, text: str) -> None:
        """A line for the reader that leaves the progress bar whole."""
        # Standard output is often a log on the disk that is full: there is nowhere left to say that the alarm cannot be said.
        with contextlib.suppress(OSError):
            if self._bar is not None:
                self._bar.write(text, file=sys.stdout)
            else:
                print(text, flush=True)

    def position(self) -> int:
        """For a checkpoint: the size of metrics.jsonl in bytes once all records so far are in it, those included that wait in
        memory while the disk is full or away."""
        return self._metrics.position()

    def close(self) -> None:
        """All records are in metrics.jsonl afterwards; OSError with the number of those that are not. Closing twice is fine."""
        if self._bar is not None:
            self._bar.close()
        try:
            self._plot(self._metrics.close())
        finally:
            if self._board is not None:
                with self._until_board_fails():
                    self._board.close()

    def _write(self, kind: str, record: Mapping[str, object]) -> int:
        row = {"kind": kind, "attempt": self._attempt} | {key: _plain(value) for key, value in record.items()}
        step = row.get("step")
        if not isinstance(step, int) or isinstance(step, bool):
            raise ValueError(f"a {kind} record needs an integer `step`, got {step!r}")
        self._plot(self._metrics.append((json.dumps(row, allow_nan=False) + "\n").encode()))
        return step

    def _plot(self, lines: Sequence[bytes]) -> None:
        """Give TensorBoard the records that metrics.jsonl has taken, so that an outage of that file is no gap in the curves."""
        for row in map(json.loads, lines):
            if self._board is None:
                return
            self._plotted_step = row["step"]
            tags, other = TAGS[row["kind"]], f"other/{row['kind']}_"
            with self._until_board_fails():
                for key, value in row.items():
                    if key not in UNPLOTTED and isinstance(value, (int, float)):
                        self._board.add_scalar(tags.get(key, other + key), value, row["step"])

    @contextlib.contextmanager
    def _until_board_fails(self) -> Iterator[None]:
        """With its first error the run goes on without TensorBoard, and says so once: TensorBoard's thread is dead then, and
        every later call would raise the error again. It is an OSError, or tensorflow's own where that is installed."""
        try:
            yield
        except Exception as error:
            assert self._board is not None
            where, self._board = Path(self._board.log_dir), None
            self.message(
                f"ALARM: {where} cannot be written ({error}): TensorBoard's curves end at step {self._plotted_step}, "
                f"the run goes on without it; {METRICS} has every step, and "
                f"`python -m pipeline report --run {quote(str(where.parent))}` draws them all"
            )

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
