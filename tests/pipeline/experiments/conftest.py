"""An experiment by the command line, as a user has it, on the built-in text."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import main

Quick = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def quick(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Quick:
    """Runs one with --quick; its result.json."""

    def run(name: str, *options: str, out: Path | None = None) -> dict[str, Any]:
        out = out or tmp_path_factory.mktemp(name)
        assert main(["experiment", name, "--quick", "--data", str(corpus), "--out", str(out), *options]) == 0
        assert (out / "picture.png").read_bytes().startswith(b"\x89PNG")
        assert (out / "table.md").read_text(encoding="utf-8").count("\n| ") >= 3
        return json.loads((out / "result.json").read_text(encoding="utf-8"))

    return run
