"""What `pretrain --outcome FILE` leaves for a batch system, which cannot rely on the exit codes of many ranks."""

import json
import signal
from pathlib import Path

import pytest

from pipeline.distributed.stop_signals import SIGNALS, StopRequest, outcome_in
from preprocessing.base.command_line import RankError
from tests.helpers.ranks import WITHOUT_REPORT, Death, RankServer
from tests.helpers.running import SMALL


def test_the_outcomes_of_runs(rank_server: RankServer, corpus: Path, tmp_path: Path) -> None:
    file = tmp_path / "outcome.json"
    command = ["pretrain", "--recipe", "tiny-untied", "--data", corpus, "--run", tmp_path / "run", *SMALL, "--outcome", file]
    killed = rank_server.run(command, 2, die=Death(1, "step", 3), skip=WITHOUT_REPORT)
    assert killed.codes[0] == 1
    assert not file.exists()
    stopped = rank_server.run(command, 2, die=Death(1, "step", 3, signal=15), skip=WITHOUT_REPORT)
    assert stopped.codes == [75, 75]
    assert json.loads(file.read_text()) == {"outcome": "stopped"}
    assert rank_server.run(command, 2, skip=WITHOUT_REPORT).codes == [0, 0]
    assert json.loads(file.read_text()) == {"outcome": "finished"}
    assert rank_server.run([*command, "--set", "optim.lr=0.01"], 2).codes == [2, 2]
    refused = json.loads(file.read_text())
    assert refused["outcome"] == "refused"
    assert "optim.lr is 0.32 there, 0.01 here" in refused["reason"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_each_signal_only_leaves_a_note_and_the_first_one_is_told(number: signal.Signals) -> None:
    """What a run does about it is in test_resume.py."""
    handlers, request = {one: signal.getsignal(one) for one in SIGNALS}, StopRequest()
    try:
        request.listen()
        assert request.reason is None
        signal.raise_signal(number)
        assert request.reason == f"signal {number.name}"
        signal.raise_signal(signal.SIGTERM)
        assert request.reason == f"signal {number.name}"
        if number == signal.SIGINT:
            with pytest.raises(KeyboardInterrupt):  # a second Ctrl-C ends the process at once
                signal.raise_signal(number)
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)


@pytest.mark.parametrize(("error", "left"), [(ValueError("a\nb"), "a b"), (OSError("c"), "c"), (RankError("one rank"), None)])
def test_errors(tmp_path: Path, error: Exception, left: str | None) -> None:
    file = tmp_path / "outcome.json"
    with pytest.raises(type(error)), outcome_in(file):
        raise error
    assert (json.loads(file.read_text())["reason"] if left else file.exists()) == (left or False)


def test_an_interrupt_and_a_bug_leave_nothing(tmp_path: Path) -> None:
    for error in (KeyboardInterrupt(), MemoryError(), AssertionError()):
        with pytest.raises(type(error)), outcome_in(tmp_path / "outcome.json"):
            raise error
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_does_not_hide_the_end(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="why"), outcome_in(tmp_path / "none" / "outcome.json"):
        raise ValueError("why")
