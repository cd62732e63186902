"""Which checkpoints are kept: the newest few, and one at every so many steps."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline.checkpoint.layout import CHECKPOINTS, LATEST, hidden, step_directories, step_of
from preprocessing.base.files import WRITING


def surplus(steps: Sequence[int], keep_last: int, keep_every_steps: int) -> list[int]:
    """The steps that neither rule keeps, oldest first. keep_last = 0 keeps all; keep_every_steps = 0 keeps none for its own
    sake. ValueError for numbers below 0."""
    if keep_last < 0 or keep_every_steps < 0:
        raise ValueError(f"keep the last {keep_last} and one every {keep_every_steps} steps: expected numbers from 0 up")
    newest_last = sorted(steps)
    old = newest_last[:-keep_last] if keep_last else []
    return [step for step in old if not (keep_every_steps and step % keep_every_steps == 0)]


def delete(directory: Path) -> None:
    """Delete a checkpoint: it loses its name first, so that a half-deleted one is never taken for a whole one."""
    doomed = hidden(directory, "deleting")
    directory.rename(doomed)
    shutil.rmtree(doomed)


def clear_leftovers(run_dir: Path) -> None:
    """Delete what a killed save, replacement or deletion of this run left under a hidden or temporary name."""
    for directory in (run_dir / CHECKPOINTS).glob(".*-step-*"):
        shutil.rmtree(directory, ignore_errors=True)
    for file in (run_dir / CHECKPOINTS).glob(f"{LATEST}{WRITING}*"):
        file.unlink(missing_ok=True)


def steps_on_disk(run_dir: Path) -> dict[int, Path]:
    """Step -> directory of everything that carries a checkpoint's name."""
    return {step_of(directory): directory for directory in step_directories(run_dir)}
