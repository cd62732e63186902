"""A run is its directory: what is written at its start, and what must agree when it goes on."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig, as_dict, from_dict
from pipeline.json_file import WRITING_SUFFIX, read_object, write_object
from preprocessing.shards import Corpus

PACKAGES = ("torch", "deepspeed", "numpy", "pyarrow", "sentencepiece", "safetensors")


def run_file(config: RunConfig, recipe: str, corpus: Corpus) -> dict[str, Any]:
    """The contents of RUN/config.json."""
    return {
        "recipe": recipe,
        "data": str(Path(corpus.directory).resolve()),
        "corpus_sha256": corpus.manifest_sha256,
        "config": as_dict(config),
    }


def versions() -> dict[str, str]:
    """Of python, the packages that shape the numbers, the platform and the source's git commit (if it is a checkout)."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "git": _git_commit(),
        "command": shlex.join(["python", "-m", "pipeline", *sys.argv[1:]]),
    }


def _git_commit() -> str:
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return "not a git checkout"
    describe = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown: git does not answer"


def open_run(run_dir: Path, wanted: Mapping[str, Any]) -> None:
    """Make RUN, or check that what is there is this run (`check_run`); nothing that is there is changed."""
    check_run(run_dir, wanted)
    run_dir.mkdir(parents=True, exist_ok=True)
    if not (run_dir / "config.json").exists():
        write_object(run_dir / "config.json", wanted)


def check_run(run_dir: Path, wanted: Mapping[str, Any]) -> None:
    """ValueError unless RUN can be made, or is a run of the same configuration and corpus; it names what differs.

    `wanted` is `run_file`'s. Where the corpus lies, the recipe's prose and DeepSpeed's mechanics may change between starts;
    what is trained on what may not.
    """
    if not run_dir.exists():
        parent = next(p for p in run_dir.absolute().parents if p.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise ValueError(f"{run_dir} cannot be made: {parent} is not a directory that can be written to")
        return
    if run_dir.is_dir() and all(entry.name.endswith(WRITING_SUFFIX) for entry in run_dir.iterdir()):
        return
    path = run_dir / "config.json"
    if not path.is_file():
        raise ValueError(f"{run_dir} is there but holds no config.json: it is not a run directory; give another --run")
    found = read_object(path, required=("config", "corpus_sha256"))
    there = as_dict(from_dict(found["config"], where=str(path)))
    difference = _first_difference(_identity(there), _identity(wanted["config"]), "") or _first_difference(
        found["corpus_sha256"], wanted["corpus_sha256"], "corpus_sha256"
    )
    if difference:
        raise ValueError(f"{run_dir} belongs to another configuration: {difference}; give another --run, or the same settings")


def _identity(config: Mapping[str, Any]) -> dict[str, Any]:
    train = {key: value for key, value in config["train"].items() if key != "ds_config"}
    return {**config, "description": "", "train": train}


def _first_difference(found: Any, wanted: Any, where: str) -> str | None:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for key in sorted(found.keys() | wanted.keys()):
            name = f"{where}.{key}" if where else key
            difference = _first_difference(found.get(key), wanted.get(key), name)
            if difference:
                return difference
        return None
    return None if found == wanted else f"{where} is {found!r} there, {wanted!r} here"
