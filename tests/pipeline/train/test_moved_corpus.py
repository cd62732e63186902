"""A corpus that has moved, another one of the same tokenizer, and a run that cannot be written to: what is known is said."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.checkpoint.manage import convert
from pipeline.report.run_page import write_report
from pipeline.train.evaluate import evaluate_run
from preprocessing.base.files import file_sha256
from preprocessing.corpus.manifest import MANIFEST_FILE, UNIGRAM_COUNTS_FILE
from preprocessing.corpus.reader import open_corpus
from tests.helpers.ranks import WITHOUT_REPORT, RankServer
from tests.helpers.running import SMALL, set_options

Start = Callable[..., str]


@pytest.fixture
def moved(rank_server: RankServer, little_corpus: Path, tmp_path: Path) -> tuple[Path, Path, Path, Start]:
    """(run, where its corpus was, where it is now, how to start the run on a corpus)."""
    old, new, run = tmp_path / "old place", tmp_path / "new place", tmp_path / "the run"
    shutil.copytree(little_corpus, old)

    def start(corpus: Path) -> str:
        argv = ["pretrain", "--recipe", "tiny", "--data", corpus, "--run", run, *SMALL, *set_options(train__steps=2)]
        done = rank_server.run(argv, skip=WITHOUT_REPORT)
        assert done.codes == [0], done.stderr
        return done.stdout

    start(old)
    old.rename(new)
    return run, old, new, start


def run_file(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "config.json").read_text())
    return found


def test_what_needs_the_corpus_says_all_that_is_known_of_it_and_the_rest_works(
    moved: tuple[Path, Path, Path, Start], tmp_path: Path
) -> None:
    run, old, new, start = moved
    with pytest.raises(ValueError, match="and is not there any more") as refusal:
        evaluate_run(run)
    for known in (str(run), str(old), run_file(run)["corpus_sha256"][:12], run_file(run)["tokenizer_sha256"][:12], "--data"):
        assert known in str(refusal.value)
    assert write_report(run).exists()
    convert(run, None, tmp_path / "weights.safetensors", lambda text: None)
    figures = evaluate_run(run, new)
    assert "trained_on" not in figures
    shutil.copytree(new, old)
    (old / "tokenizer.model").unlink()
    with pytest.raises(ValueError, match=r"was at .*tokenizer.model: missing.*--data"):
        evaluate_run(run)


def test_a_resume_with_the_new_place_notes_it(moved: tuple[Path, Path, Path, Start]) -> None:
    run, old, new, start = moved
    before = run_file(run)
    assert f"is {new} now (it was {old}): noted" in start(new)
    assert run_file(run) == {**before, "data": str(new)}
    assert evaluate_run(run)["step"] == 2
    assert "noted" not in start(new)


def with_other_manifest(corpus: Path, place: Path) -> Path:
    """The same text, in a corpus that is another one by its manifest."""
    shutil.copytree(corpus, place)
    (place / "manifest.json").write_text((corpus / "manifest.json").read_text() + "\n")
    assert open_corpus(place).manifest_sha256 != open_corpus(corpus).manifest_sha256
    return place


def test_another_corpus_of_the_same_tokenizer_can_be_evaluated(
    moved: tuple[Path, Path, Path, Start], corpus: Path, tmp_path: Path
) -> None:
    run, old, new, start = moved
    other = with_other_manifest(new, tmp_path / "other")
    figures = evaluate_run(run, other)
    assert (figures["data"], figures["trained_on"]) == (str(other), str(old))
    assert figures["heldout_loss"] == evaluate_run(run, new)["heldout_loss"]
    theirs, ours = (open_corpus(place).manifest.tokenizer_sha256[:12] for place in (corpus, new))
    with pytest.raises(ValueError, match=f"sha256 {theirs}…, the run was trained with {ours}…"):
        evaluate_run(run, corpus)
    with_other_manifest(new, old)
    with pytest.raises(ValueError, match=r"is not the corpus of .* any more"):
        evaluate_run(run)


def with_other_counts(corpus: Path, place: Path) -> Path:
    """The same held-out text, in a corpus whose training text has every piece as often as another piece there."""
    shutil.copytree(corpus, place)
    manifest = json.loads((place / MANIFEST_FILE).read_text())
    np.save(place / UNIGRAM_COUNTS_FILE, np.load(place / UNIGRAM_COUNTS_FILE)[:, ::-1])
    manifest["unigram_counts_sha256"] = file_sha256(place / UNIGRAM_COUNTS_FILE)
    (place / MANIFEST_FILE).write_text(json.dumps(manifest))
    return place


def test_on_another_corpus_the_model_keeps_the_token_frequencies_of_its_own(
    moved: tuple[Path, Path, Path, Start], tmp_path: Path
) -> None:
    """They are the bias of a row-normalised decoder, and in no checkpoint."""
    run, old, new, _ = moved
    other = with_other_counts(new, tmp_path / "other")
    with pytest.raises(ValueError, match=rf"token frequencies are a part of its model.* was at {old} .*put it back") as refusal:
        evaluate_run(run, other)
    assert str(other) in str(refusal.value)
    shutil.copytree(new, old)
    assert evaluate_run(run, other)["heldout_loss"] == evaluate_run(run)["heldout_loss"]


def test_a_report_of_a_run_that_cannot_be_written_to(moved: tuple[Path, Path, Path, Start], tmp_path: Path) -> None:
    run, _, _, _ = moved
    (run / "report.html").mkdir()  # as good as a read-only file system, for root, too
    with pytest.raises(ValueError, match=r"report.html: .*; --out FILE puts the page elsewhere"):
        write_report(run)
    assert write_report(run, out=tmp_path / "page.html") == tmp_path / "page.html"
    assert "the run" in (tmp_path / "page.html").read_text()
    with pytest.raises(ValueError, match="give another --out FILE"):
        write_report(run, out=tmp_path / "nowhere" / "page.html")
