"""SGD beside AdamW: the best of as many trials on either side, then the seeds; runs that are there are read."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.experiments.parity import runs
from pipeline.experiments.parity.runs import Candidate, candidate, reached, run_name
from tests.helpers.ranks import RankServer
from tests.pipeline.experiments.conftest import Quick


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parity")


@pytest.fixture(scope="module")
def result(quick: Quick, out: Path, rank_server: RankServer) -> dict[str, Any]:
    """The runs are real ones, of a process that has imported everything already."""

    def launch(words: Sequence[str], ranks: int) -> None:
        done = rank_server.run(list(words), ranks=ranks)
        assert done.codes == [0] * ranks, done.stderr

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "launch", launch)
        return quick("parity", out=out)


def test_sgd_is_not_behind_adamw(result: dict[str, Any]) -> None:
    ends = {name: of[0]["heldout_loss"] for name, of in result["measured"]["runs"].items()}
    assert result["measured"]["baseline"] == "tiny-bert"
    assert ends["tiny"] < ends["tiny-bert"]
    assert 0 < float(result["table"][0]["tokens to the baseline's loss"]) < 1


def test_either_side_has_the_same_trials_and_its_best_one_counts(result: dict[str, Any]) -> None:
    trials = result["measured"]["trials"]
    assert [list(of) for of in trials.values()] == [["1.0", "4.0"]] * 2
    for name, of in trials.items():
        assert result["measured"]["runs"][name][0]["heldout_loss"] == min(of.values())
    settings = result["settings"]
    products = [of["optim"]["lr"] * of["optim"]["weight_decay"] for of in settings["tiny"].values()]
    assert products[1] == pytest.approx(4 * products[0])
    assert settings["tiny-bert"]["4.0"]["optim"]["lr"] == pytest.approx(4 * settings["tiny-bert"]["1.0"]["optim"]["lr"])


def test_what_is_there_is_read(result: dict[str, Any], quick: Quick, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "launch", lambda words, ranks: pytest.fail(f"{words} is there"))
    assert quick("parity", out=out)["measured"] == result["measured"]


def test_names_and_settings() -> None:
    one = candidate("fast=tiny,optim.decay_budget=3", ["train.steps=300"])
    assert one == Candidate("fast", "tiny", ("train.steps=300", "optim.decay_budget=3"))
    assert run_name(one, 1.0, 2) == "fast-2"
    assert run_name(one, 0.5, 2) == "fast-x0.5-2"
    assert one.config(2.0).optim.lr * one.config().optim.weight_decay > 0
    assert one.config(2.0).optim.lr * one.config(2.0).optim.weight_decay * 300 == pytest.approx(6)
    assert candidate("tiny-bert", []).faster(0.5) == ("optim.lr=0.001",)


def test_a_loss_is_reached_on_the_line_between_two_evaluations() -> None:
    rows = [{"step": 0, "heldout_loss": 6.0}, {"step": 100, "heldout_loss": 5.0}, {"step": 200, "heldout_loss": 4.0}]
    assert reached(rows, 4.25) == pytest.approx(175)
    assert reached(rows, 3.9) == math.inf
    assert reached(rows, 6.5) == 0, "at the first evaluation already"


def test_a_run_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runs.sys, "executable", "/bin/false")
    with pytest.raises(ValueError, match="exit code 1"):
        runs.trained(candidate("tiny", []), 1.0, 0, tmp_path, tmp_path, 1)
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_told_to_stop_stops_the_experiment_as_it_does_a_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stopped = tmp_path / "python"
    stopped.write_text("#!/bin/sh\nexit 75\n")
    stopped.chmod(0o755)
    monkeypatch.setattr(runs.sys, "executable", str(stopped))
    with pytest.raises(SystemExit, match="75"):
        runs.trained(candidate("tiny", []), 1.0, 0, tmp_path, tmp_path, 1)
