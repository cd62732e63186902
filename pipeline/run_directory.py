"""A run is its directory: what is written at its start, and what must agree when it goes on."""

import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig, as_dict
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
    root = Path(__file__).parent.parent
    git = (
        subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=False,
        )
        if (root / ".git").exists()
        else None
    )
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "git": git.stdout.strip() if git and git.returncode == 0 else "not a git checkout",
        "command": " ".join(["python", "-m", "pipeline", *sys.argv[1:]]),
    }


def open_run(run_dir: Path, wanted: Mapping[str, Any]) -> None:
    """Make RUN, or check that what is there is this run (`check_run`); nothing that is there is changed."""
    check_run(run_dir, wanted)
    run_dir.mkdir(parents=True, exist_ok=True)
    if not (run_dir / "config.json").exists():
        write_json(run_dir / "config.json", wanted)


def check_run(run_dir: Path, wanted: Mapping[str, Any]) -> None:
    """ValueError unless RUN is missing, empty, or a run of the same configuration and corpus; it names what differs.

    `wanted` is `run_file`'s. Where the corpus lies may change between starts; what it is may not.
    """
    if not run_dir.exists() or (run_dir.is_dir() and not any(run_dir.iterdir())):
        return
    path = run_dir / "config.json"
    if not path.is_file():
        raise ValueError(f"{run_dir} is there but holds no config.json: it is not a run directory; give another --run")
    found = json.loads(path.read_text(encoding="utf-8"))
    for key in ("config", "corpus_sha256"):
        difference = _first_difference(found.get(key), wanted[key], key)
        if difference:
            raise ValueError(
                f"{run_dir} belongs to another configuration: {difference}; give another --run, or the same settings"
            )


def _first_difference(found: Any, wanted: Any, where: str) -> str | None:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for key in sorted(found.keys() | wanted.keys()):
            name = key if where == "config" else f"{where}.{key}"
            difference = _first_difference(found.get(key), wanted.get(key), name)
            if difference:
                return difference
        return None
    return None if found == wanted else f"{where} is {found!r} there, {wanted!r} here"


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Whole or not at all: a temporary file, then a rename."""
    temporary = path.with_name(f".{path.name}.writing")
    temporary.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    temporary.rename(path)
