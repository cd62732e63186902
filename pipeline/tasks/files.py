"""Which files of a folder are a task's, and what is in them."""

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.tasks.examples import TaskName

ENDINGS: dict[TaskName, tuple[str, ...]] = {
    "mnli": (".jsonl", ".json", ".tsv"),
    "squad1": (".json",),
    "squad2": (".json",),
}
OTHER_VERSION: dict[TaskName, str] = {"mnli": "v", "squad1": "v2", "squad2": "v1"}


def files_of(task: TaskName, folder: Path, split: str) -> list[Path]:
    """The files whose names have `split` ("train", "dev") in them and end as the task's do (also with .gz), but for those that
    name SQuAD's other version (v1…, v2…). ValueError if there is none."""
    if not folder.is_dir():
        raise ValueError(f"--data {folder}: no such folder; expected one with the task's official files, train and dev")
    endings = [ending + gz for ending in ENDINGS[task] for gz in ("", ".gz")]
    found = sorted(
        path
        for path in folder.iterdir()
        if split in path.name and path.name.endswith(tuple(endings)) and f"-{OTHER_VERSION[task]}" not in path.name
    )
    if not found:
        raise ValueError(
            f"--data {folder}: no {split} file of {task}: expected a name with {split!r} that ends in {', '.join(endings)}"
        )
    return found


def named(paths: Sequence[Path]) -> str:
    """Their names, for people."""
    return ", ".join(path.name for path in paths)


def read_text(path: Path) -> str:
    """A UTF-8 file, or a .gz of one, less the byte order mark that some editors put before it. ValueError if it is neither."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return content.decode("utf-8-sig")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: not a whole .gz file: {error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error}") from error


def parse_json(text: str, complaint: str, remedy: str = "") -> Any:
    """The value that a JSON text is; ValueError (`complaint`: why, `remedy`) if it is none, or none that can be read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 4301 digits is a ValueError, and no JSONDecodeError
        raise ValueError(f"{complaint}: {error}{remedy}") from error
