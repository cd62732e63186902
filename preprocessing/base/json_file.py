"""JSON objects on disk: written whole or not at all, read with an error that names the file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from preprocessing.base.files import write_whole


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
    """Write a file that `read_object` reads, whole or not at all. Only finite numbers; ValueError for others."""
    write_whole(path, (json.dumps(values, indent=1, allow_nan=False) + "\n").encode())
