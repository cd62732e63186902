"""Shared by all tests: a real corpus, and a little one. Everything random is seeded with SEED."""

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from pipeline.__main__ import main
from pipeline.data.pretraining import PretrainingData
from pipeline.distributed.launch import LAUNCHER_VARIABLES
from preprocessing.corpus.reader import open_corpus
from tests.helpers.ranks import rank_server  # noqa: F401 (a fixture)
from tests.helpers.running import run_cli
from tests.helpers.side_by_side import (
    made_once,
    pytest_collection_modifyitems,  # noqa: F401 (a hook)
    pytest_xdist_make_scheduler,  # noqa: F401 (a hook)
)

SEED = 20261121
AT_THE_START = frozenset(os.environ)

# The tensors of tests are small: threads would wait for each other longest, and the more so the busier the cores are.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in corpus with a vocabulary of 1024, made by the real program."""

    def make(folder: Path) -> None:
        # No more held-out text than that: every run evaluates all of it at its end.
        options = ("--vocab-size", "1024", "--heldout-fraction", "0.02", "--out", folder / "builtin")
        built = run_cli("preprocessing", "build", "--source", "builtin", *options)
        assert built.returncode == 0, built.stderr

    return made_once(tmp_path_factory, "corpus", make) / "builtin"


@pytest.fixture(scope="session")
def little_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So small that a run of 24 steps of 16 sequences reads it more than twice."""

    def make(folder: Path) -> None:
        words = random.Random(SEED)
        vocabulary = ["".join(words.choices("abcdefghiklmnorstu", k=words.randint(2, 8))) for _ in range(300)]
        with (folder / "text.jsonl").open("w") as file:
            for number in range(40):
                sentences = [" ".join(words.choices(vocabulary, k=9)).capitalize() + "." for _ in range(9)]
                file.write(json.dumps({"id": str(number), "title": f"T{number}", "text": " ".join(sentences)}) + "\n")
        options = ("--vocab-size", "300", "--heldout-fraction", "0.1", "--out", folder / "corpus")
        built = run_cli("preprocessing", "build", "--source", folder / "text.jsonl", *options)
        assert built.returncode == 0, built.stderr
        samples = PretrainingData(open_corpus(folder / "corpus"), "train", "mlm", 32, 0.15, 0).n_samples
        assert 100 < samples < 24 * 16 / 2, f"{samples} samples: an epoch must end within the run, and not with a step"
        assert samples % 16

    return made_once(tmp_path_factory, "little", make) / "corpus"


@pytest.fixture(autouse=True)
def launchers_variables_stay() -> Iterator[None]:
    """A test that leaves RANK and the like in this process makes a later one a rank of a launcher that is not there."""
    yield
    left = [name for name in LAUNCHER_VARIABLES if name not in AT_THE_START and os.environ.pop(name, None) is not None]
    assert not left, f"left in the environment: {', '.join(left)}"


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Call `python -m pipeline` in this process: exit code, what it prints, its one line of refusal."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        code = main([str(word) for word in arguments])
        out, error = capsys.readouterr()
        assert len(error.strip().splitlines()) == (code == 2), error
        return code, out, error

    return run
