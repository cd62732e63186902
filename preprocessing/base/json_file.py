"""JSON objects on disk: written whole or not at all, read with an error that names the file."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

WRITING_SUFFIX = ".writing"  # of temporary files; what carries it is never read


def read_object(path: Path, required: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON object in a file; ValueError naming the file if it is none, or lacks a required key."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(values).__name__}")
    missing = [key for key in required if key not in values]
    if missing:
        raise ValueError(f"{path}: no {', '.join(missing)} in it: the file is damaged or of another version")
    return values


def write_object(path: Path, values: Mapping[str, Any]) -> None:
    """Whole or not at all, a power loss included: a temporary file, fsync, rename. Only finite numbers."""
    temporary = path.with_name(f".{path.name}{WRITING_SUFFIX}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(values, indent=1, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
