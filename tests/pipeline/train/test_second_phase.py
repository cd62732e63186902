"""A run that begins with another one's weights (`--from`), and a run that is made longer: what is recorded, and the numbers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.checkpoint.layout import MANIFEST, step_directories
from pipeline.checkpoint.reader import Checkpoint
from pipeline.checkpoint.snapshot import PARAM
from pipeline.export.export import export
from pipeline.init.from_weights import POSITIONS
from pipeline.report.run_page import write_report
from pipeline.run.exported import WEIGHTS_FILE
from preprocessing.base.files import file_sha256
from tests.helpers.ranks import WITHOUT_REPORT, Death, Ranks, RankServer
from tests.helpers.running import SMALL, set_options
from tests.helpers.same_run import assert_same, metrics

RHYTHM = set_options(train__eval_every_steps=4, train__checkpoint_every_steps=4)
FIRST = (*SMALL, *RHYTHM, *set_options(train__steps=9, model__max_seq_len=32))
SECOND = (*SMALL, *RHYTHM, *set_options(train__steps=4, model__max_seq_len=80, data__seq_len=64, train__seed=1))


class Runs:
    """`pretrain` on one corpus, in runs below one folder."""

    def __init__(self, server: RankServer, corpus: Path, folder: Path) -> None:
        self.server, self.corpus, self.folder = server, corpus, folder

    def start(self, name: str, *options: str | Path, ranks: int = 0, **more: Any) -> Ranks:
        words = ["pretrain", "--recipe", "tiny-untied", "--data", self.corpus, "--run", self.folder / name, *options]
        return self.server.run(words, ranks, skip=WITHOUT_REPORT, **more)

    def refused(self, name: str, *options: str | Path) -> str:
        done = self.start(name, *options)
        assert done.codes == [2], done.stderr
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1, done.stderr
        return lines[0]

    def trained(self, name: str, *options: str | Path, **more: Any) -> Path:
        done = self.start(name, *options, **more)
        assert set(done.codes) == {0}, done.stderr
        return self.folder / name

    def document(self, name: str, file: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / name / file).read_text())
        return found


@pytest.fixture(scope="module")
def runs(rank_server: RankServer, little_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """With `first`, BERT's first phase in small, to be read only."""
    made = Runs(rank_server, little_corpus, tmp_path_factory.mktemp("runs"))
    made.trained("first", *FIRST)
    return made


def test_berts_two_phases_in_small(runs: Runs) -> None:
    """Its position table is the first's twice over and a half when training begins; the page and the summary say from where."""
    first = runs.folder / "first"
    told = runs.start("second", *SECOND, "--from", first, ranks=2)
    assert told.codes == [0, 0], told.stderr
    source = Checkpoint(step_directories(first)[0])
    record = {
        "checkpoint": str(source.directory),
        "step": 9,
        "manifest_sha256": file_sha256(source.directory / MANIFEST),
        "trained_positions": 32,
    }
    assert runs.document("second", "config.json")["started_from"] == record
    summary = runs.document("second", "summary.json")
    assert {key: summary[f"started_from_{key}"] for key in list(record)[:3]} == dict(list(record.items())[:3])
    assert f"step 9 of {source.directory}" in write_report(runs.folder / "second").read_text()
    found = Checkpoint(step_directories(runs.folder / "second")[0])
    assert found.manifest["made_from"]["started_from"] == record
    assert f"starting from the weights of step 9 ({source.directory})" in told.stdout
    assert "same samples" not in told.stdout


def test_an_export_is_a_start_as_its_run_is(runs: Runs, tmp_path: Path) -> None:
    """The same tensors and positions; recorded by the hash of its weights; refused once they are others."""
    first, folder = runs.folder / "first", tmp_path / "exported"
    export(first, folder)
    options = (*SECOND, *set_options(train__steps=2))
    runs.trained("of-export", *options, "--from", folder, ranks=2)
    runs.trained("of-run", *options, "--from", first, ranks=2)
    assert metrics(runs.folder / "of-export") == metrics(runs.folder / "of-run")
    begun = runs.document("of-export", "config.json")["started_from"]
    sha256 = file_sha256(folder / WEIGHTS_FILE)
    assert begun == {"checkpoint": str(folder), "step": 9, "manifest_sha256": sha256, "trained_positions": 32}
    assert runs.start("early", *options, "--from", folder, die=Death(0, "step", 1)).codes == [-9]
    whole = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "its weights are others" in runs.refused("early", *options)
    (folder / WEIGHTS_FILE).write_bytes(whole[:-1])
    assert "not a whole safetensors file" in runs.refused("new", *options, "--from", folder)


def test_the_weights_are_the_sources_and_not_balanced_again(runs: Runs) -> None:
    """All but lr = 0, which no configuration has: the first checkpoint is what was taken, to rounding."""
    still = set_options(optim__lr=1e-30, optim__clip_c="inf", train__steps=1)
    run = runs.trained("still", *SECOND, *still, "--from", runs.folder / "first/checkpoints/step-00000004")
    taken, source = Checkpoint(step_directories(run)[0]), Checkpoint(runs.folder / "first/checkpoints/step-00000004")
    for name, shape in source.manifest["parameters"].items():
        there, here = source.whole(PARAM, name), taken.whole(PARAM, name)
        if name == POSITIONS:
            assert shape == [32, 32]
            there = torch.cat([there, there, there[:16]])
        assert torch.allclose(there, here, atol=1e-12), name


def test_a_resume_goes_on_from_its_own_checkpoint_though_the_source_is_gone(runs: Runs) -> None:
    """Killed before its first checkpoint it takes the recorded weights again, and no others."""
    options = (*SECOND, *set_options(train__steps=8))
    copy = Path(shutil.copytree(runs.folder / "first", runs.folder / "copy"))
    undisturbed = runs.trained("undisturbed", *options, "--from", copy)
    assert runs.start("killed", *options, "--from", copy, die=Death(0, "step", 3)).codes == [-9]
    shutil.move(copy, runs.folder / "moved")
    assert str(copy) in runs.refused("killed", *options)
    shutil.move(runs.folder / "moved", copy)
    assert runs.start("killed", *options, die=Death(0, "step", 6)).codes == [-9]
    shutil.rmtree(copy)
    assert_same(runs.trained("killed", *options, "--from", copy), undisturbed)
    assert runs.document("killed", "config.json") == runs.document("undisturbed", "config.json")


def test_what_is_refused(runs: Runs, corpus: Path, tmp_path: Path) -> None:
    first = runs.folder / "first"
    (tmp_path / "empty").mkdir()
    assert "neither a run directory" in runs.refused("new", *SECOND, "--from", tmp_path / "empty")
    assert "neither a run directory" in runs.refused("new", *SECOND, "--from", tmp_path / "nothing")
    assert "is the run itself" in runs.refused("first", *FIRST, "--from", first, "--fresh")
    assert "began with weights of its own" in runs.refused("first", *FIRST, "--from", tmp_path)
    assert "model" in (line := runs.refused("new", *SECOND, *set_options(model__layers=3), "--from", first))
    assert "parameter encoder.layers.2." in line
    other = Runs(runs.server, corpus, runs.folder)
    theirs, ours = (json.loads((c / "manifest.json").read_text())["tokenizer_sha256"][:12] for c in (runs.corpus, corpus))
    assert f"sha256 {theirs}…, {corpus} has {ours}…" in other.refused("new", *SECOND, "--from", first)
    assert not (runs.folder / "new").exists()
    runs.trained("third", *SECOND, *set_options(train__steps=1), "--from", first)
    line = runs.refused("third", *SECOND, *set_options(train__steps=1), "--from", first / "checkpoints/step-00000004")
    assert "began with the weights of" in line
    damaged = Path(shutil.copytree(first, tmp_path / "damaged"))
    shard = next(step_directories(damaged)[0].glob("rank*"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert str(shard) in runs.refused("new", *SECOND, "--from", damaged)


def test_the_same_samples_again_are_said(runs: Runs) -> None:
    told = runs.start("again", *FIRST, *set_options(train__steps=1), "--from", runs.folder / "first")
    assert told.codes == [0], told.stderr
    assert "train.seed = 0 as there, so the same samples come again" in told.stdout


@pytest.mark.parametrize("decay", ["constant", "wsd"])
def test_a_longer_run_is_the_run_that_was_long_from_the_beginning(runs: Runs, decay: str) -> None:
    """Of `constant` a finished one is extended, of `wsd` one that is killed before the decay."""
    more = set_options(optim__schedule__decay=decay, optim__schedule__decay_fraction=0.25)
    long = (*FIRST, *more, *set_options(train__steps=16))
    short = (*FIRST, *more, *set_options(train__steps=8))
    expected = runs.trained(f"long-{decay}", *long)
    name = f"extended-{decay}"
    began = runs.start(name, *short, die=None if decay == "constant" else Death(0, "step", 7))
    assert began.codes == [0 if decay == "constant" else -9], began.stderr
    told = runs.start(name, *long)
    assert told.codes == [0], told.stderr
    at = 8 if decay == "constant" else 4
    assert f"is extended from 8 steps to 16, at step {at}" in told.stdout
    assert runs.document(name, "config.json")["extensions"] == [{"steps": 8, "at_step": at}]
    assert runs.document(name, "config.json")["config"]["train"]["steps"] == 16
    assert runs.document(name, "summary.json")["extended_from_steps"] == [8]
    assert (runs.folder / name / "summary.step-00000008.json").exists() == (decay == "constant")
    run = runs.folder / name
    if decay == "constant":  # the evaluation at its first end took all sequences, and so is another one
        assert metrics(run)[0] == metrics(expected)[0]
        assert metrics(run)[1][-1] == metrics(expected)[1][-1]
    else:
        assert_same(run, expected)
    newest = (Checkpoint(step_directories(folder)[0]) for folder in (run, expected))
    ours, theirs = ({name: c.whole(PARAM, name) for name in c.manifest["parameters"]} for c in newest)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
