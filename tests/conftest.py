"""Shared by all tests: a real corpus."""

from pathlib import Path

import pytest
from ranks import rank_server  # noqa: F401 (a fixture)
from running import run_cli


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in corpus with a vocabulary of 1024, made by the real program."""
    out = tmp_path_factory.mktemp("corpus") / "builtin"
    built = run_cli(
        "preprocessing",
        "build",
        "--source",
        "builtin",
        "--vocab-size",
        "1024",
        "--heldout-fraction",
        "0.05",
        "--out",
        out,
    )
    assert built.returncode == 0, built.stderr
    return out
