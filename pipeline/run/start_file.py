"""RUN/start.json: the start that was measured for a run (`pipeline.init.measured`), so that it is never measured again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preprocessing.base.json_file import read_object, write_object

START = "start.json"
START_KEYS = {"init", "multipliers", "figures"}


def read_start(run_dir: Path, init: str) -> dict[str, Any] | None:
    """What was found, None if nothing was yet. ValueError if it is not of model.init = `init`, or is damaged."""
    path = run_dir / START
    if not path.is_file():
        return None
    start = read_object(path, required=tuple(START_KEYS))
    if start["init"] != init:
        raise ValueError(f"{path} is the start of model.init = {start['init']!r}, this run has {init!r}: move it away")
    return start


def write_start(run_dir: Path, start: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    write_object(run_dir / START, start)
