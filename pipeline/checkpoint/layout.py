"""How a checkpoint lies on disk: its names, and its manifest.

    RUN/checkpoints/
      step-00000800/
        rank-00000-of-00002.safetensors   keys "KIND|PARAMETER|OFFSET", 1-D float32: KIND is param or a moment's name
        rank-00001-of-00002.safetensors
        probe.safetensors                 a small batch, whose loss stands in the manifest
        manifest.json                     everything else, each file's bytes and sha256; sealed by a sha256 of itself
      latest                              the newest one's name

A directory that is being written, or replaced, or deleted has a name that begins with a dot, and is never read.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preprocessing.base.json_file import read_object, write_object

FORMAT = "sibert-checkpoint-2"
CHECKPOINTS = "checkpoints"
MANIFEST, LATEST, PROBE = "manifest.json", "latest", "probe.safetensors"
SEAL = "sha256"
REQUIRED = ("format", "step", "world_size", "zero_stage", "saved_at", "made_from", "progress", "probe", "parameters", "files")
_STEP = re.compile(r"step-\d{8,}")


def step_directory(run_dir: Path, step: int) -> Path:
    """Where the checkpoint after `step` updates lives."""
    return run_dir / CHECKPOINTS / f"step-{step:08d}"


def hidden(directory: Path, why: str) -> Path:
    """The name beside `directory` under which it is written, replaced or deleted."""
    return directory.with_name(f".{why}-{directory.name}")


def shard_name(rank: int, world_size: int) -> str:
    """The file of one rank."""
    return f"rank-{rank:05d}-of-{world_size:05d}.safetensors"


def fragment_key(kind: str, name: str, offset: int) -> str:
    """The name of elements [offset, …) of the flattened parameter `name` in a shard."""
    return f"{kind}|{name}|{offset}"


def step_of(directory: Path) -> int:
    """The step in the name of a `step_directory`."""
    return int(directory.name.removeprefix("step-"))


def step_directories(run_dir: Path) -> list[Path]:
    """What carries a checkpoint's name, newest step first; whether it is whole is another question."""
    parent = run_dir / CHECKPOINTS
    found = [entry for entry in parent.iterdir() if _STEP.fullmatch(entry.name)] if parent.is_dir() else []
    return sorted(found, key=step_of, reverse=True)


def dangling_latest(run_dir: Path) -> str | None:
    """What `latest` says if there is no such checkpoint (None if there is, or no `latest`)."""
    pointer = run_dir / CHECKPOINTS / LATEST
    name = pointer.read_text(encoding="utf-8", errors="replace").strip() if pointer.is_file() else None
    return name if name is not None and run_dir / CHECKPOINTS / name not in step_directories(run_dir) else None


def write_manifest(directory: Path, values: Mapping[str, Any]) -> None:
    """Write the manifest, sealed."""
    write_object(directory / MANIFEST, {SEAL: _seal(values), **values})


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest's values; ValueError unless it is there, of this format, and exactly what was written."""
    path = directory / MANIFEST
    if not path.is_file():
        raise ValueError(f"{directory}: no {MANIFEST}: not a finished checkpoint")
    values = read_object(path, required=("format",))
    if values["format"] != FORMAT:
        raise ValueError(
            f"{directory}: format {values['format']!r}, expected {FORMAT!r}: another version of this program wrote it"
        )
    if values.pop(SEAL, None) != _seal(values):
        raise ValueError(f"{path}: its sha256 does not agree with its contents: it is damaged, or was edited")
    missing = [key for key in REQUIRED if key not in values]
    if missing:
        raise ValueError(f"{path}: no {', '.join(missing)} in it")
    return values


def _seal(values: Mapping[str, Any]) -> str:
    """sha256 of the values, however they are laid out."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
