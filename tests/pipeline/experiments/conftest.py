"""An experiment by the command line, as a user has it, on made-up text: the built-in one is another on each Python."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import main
from tests.helpers.made_up_text import write_made_up
from tests.helpers.running import run_cli
from tests.helpers.side_by_side import made_once

Quick = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def made_up_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a vocabulary of 1024."""

    def make(folder: Path) -> None:
        write_made_up(folder / "text.jsonl")
        options = ("--vocab-size", "1024", "--heldout-fraction", "0.1", "--out", folder / "corpus")
        built = run_cli("preprocessing", "build", "--source", folder / "text.jsonl", *options)
        assert built.returncode == 0, built.stderr

    return made_once(tmp_path_factory, "made-up", make) / "corpus"


@pytest.fixture(scope="module")
def quick(made_up_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Quick:
    """Runs one with --quick; its result.json."""

    def run(name: str, *options: str, out: Path | None = None) -> dict[str, Any]:
        out = out or tmp_path_factory.mktemp(name)
        assert main(["experiment", name, "--quick", "--data", str(made_up_corpus), "--out", str(out), *options]) == 0
        assert (out / "picture.png").read_bytes().startswith(b"\x89PNG")
        assert (out / "table.md").read_text(encoding="utf-8").count("\n| ") >= 3
        return json.loads((out / "result.json").read_text(encoding="utf-8"))

    return run
