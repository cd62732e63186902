"""What a user can get wrong before and after a run: one line that says what, exit 2, and nothing that looks whole."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.config.load import load_recipe
from pipeline.run.directory import open_run, run_file
from preprocessing.base.files import temporary_name
from preprocessing.corpus.reader import open_corpus
from tests.helpers.running import SMALL, set_options


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Call the CLI in this process; the refusal's one line."""

    def run(*words: str | Path) -> str:
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:
            code = int(str(stop.code))
        out, error = capsys.readouterr()
        assert code == 2, out + error
        assert len(error.strip().splitlines()) == 1, error
        return error

    return run


@pytest.fixture(scope="module")
def copied(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(corpus, tmp_path_factory.mktemp("copied") / "corpus"))


def dry(data: Path, run: Path, *options: str) -> list[str | Path]:
    return ["pretrain", "--recipe", "tiny-untied", "--data", data, "--run", run, "--dry-run", *SMALL, *options]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "optm.lr=1"], ["did you mean 'optim'"]),
        (["--set", "optim.lr=" + "9" * 400], ["optim.lr", "expected float"]),
        (["--set", "train.steps=10\nx=3"], ["one value on one line"]),
        (["--world-size", "3"], ["world size 3", "would do"]),
        (["--world-size", "0"], ["world size 0"]),
        (["--world-size", "two"], ["--world-size"]),
        (["--set", "train.ds_config=zero9"], ["ds_config", "zero1"]),
        (["--frobnicate"], ["--frobnicate"]),
    ],
)
def test_a_bad_option(call: Callable[..., str], corpus: Path, tmp_path: Path, options: list[str], words: list[str]) -> None:
    line = call(*dry(corpus, tmp_path / "run", *options))
    assert all(word in line for word in words), line
    assert not (tmp_path / "run").exists()


def test_a_misspelt_recipe_verb_or_key_of_a_recipe_file(call: Callable[..., str], corpus: Path, tmp_path: Path) -> None:
    assert "did you mean 'tiny'" in call("pretrain", "--recipe", "tinny", "--data", corpus, "--run", tmp_path / "run")
    assert "pretrain" in call("pretrian")
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[optim]\nlearning_rate = 1\n")
    line = call("pretrain", "--recipe", recipe, "--data", corpus, "--run", tmp_path / "run")
    assert "unknown key 'optim.learning_rate'" in line
    recipe.write_text("[optim\n")
    assert "not valid TOML" in call("pretrain", "--recipe", recipe, "--data", corpus, "--run", tmp_path / "run")


def test_data_that_is_not_a_corpus(call: Callable[..., str], tmp_path: Path) -> None:
    assert "no such directory" in call(*dry(tmp_path / "nothing", tmp_path / "run"))
    assert "not a finished corpus" in call(*dry(tmp_path, tmp_path / "run"))


@pytest.mark.parametrize("name", ["train-00000.arrow", "tokenizer.model", "unigram_counts.npy"])
def test_a_flipped_byte_in_the_corpus_names_the_file(call: Callable[..., str], copied: Path, tmp_path: Path, name: str) -> None:
    path = copied / name
    whole = path.read_bytes()
    data = bytearray(whole)
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    try:
        assert name in call(*dry(copied, tmp_path / "run"))
    finally:
        path.write_bytes(whole)


def start(corpus: Path, run: Path) -> None:
    """A run directory as pretrain leaves it at its start."""
    open_run(run, run_file(load_recipe("tiny-untied", SMALL[1::2]), "tiny-untied", open_corpus(corpus)))


def test_a_run_directory_of_another_configuration_or_corpus(call: Callable[..., str], corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    start(corpus, run)
    before = {p: p.read_bytes() for p in run.iterdir()}
    assert "optim.lr is 0.32 there, 0.1 here" in call(*dry(corpus, run, *set_options(optim__lr=0.1)))
    values = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**values, "corpus_sha256": "0" * 64}))
    assert "corpus_sha256 is" in call(*dry(corpus, run))
    (run / "config.json").write_bytes(before[run / "config.json"])
    assert {p: p.read_bytes() for p in run.iterdir()} == before


def test_prose_and_mechanics_may_change_between_starts(corpus: Path, tmp_path: Path) -> None:
    start(corpus, tmp_path / "run")
    words = dry(corpus, tmp_path / "run", *set_options(train__ds_config="zero2", description="other words"))
    assert main([str(word) for word in words]) == 0


@pytest.mark.parametrize(("text", "words"), [("{", "not valid JSON"), ("[]", "expected a JSON object"), ("{}", "config")])
def test_a_damaged_config_names_the_file(call: Callable[..., str], corpus: Path, tmp_path: Path, text: str, words: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(text)
    line = call(*dry(corpus, run))
    assert "config.json" in line
    assert words in line
    assert "config.json" in call("evaluate", "--run", run)


def test_places_where_no_run_can_be(call: Callable[..., str], corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "not a directory" in call(*dry(corpus, tmp_path / "file" / "run"))
    assert "not a run directory" in call(*dry(corpus, tmp_path))
    assert "not a run directory" in call("evaluate", "--run", tmp_path / "nothing")
    assert "--sequences 0" in call("evaluate", "--run", tmp_path, "--sequences", "0")
    start(corpus, tmp_path / "run")
    assert "no checkpoint yet" in call("evaluate", "--run", tmp_path / "run")
    assert "pretrain" in call("report", "--run", tmp_path / "run")


def test_a_start_that_was_killed_while_it_wrote_can_be_repeated(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    temporary_name(run / "config.json").write_text("{")
    assert main([str(word) for word in dry(corpus, run)]) == 0


def test_half_a_launcher(call: Callable[..., str], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "x")
    assert "not set" in call(*dry(corpus, tmp_path / "run"))
