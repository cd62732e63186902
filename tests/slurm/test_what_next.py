"""What follows on each end of a start: the table of docs/slurm.md, and the count that ends a crash loop."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slurm import life
from slurm.life import Ending, fruitless_starts, what_next
from slurm.records import OUTCOME, folder_of, read_lines

CRASH = Ending("", "", 1, "RUNNING", "None", preempted=False, fruitless=1)


@pytest.mark.parametrize(
    ("changed", "do", "end"),
    [
        ({"outcome": "finished", "exit_code": 0}, "done", "finished"),
        ({"outcome": "finished", "job_state": "COMPLETING"}, "done", "finished"),  # cancelled a moment too late
        ({"outcome": "stopped", "exit_code": 75}, "requeue", "stopped"),
        ({"outcome": "stopped", "exit_code": 143, "preempted": True}, "requeue", "stopped"),
        ({"outcome": "stopped", "job_state": "COMPLETING"}, "leave", "cancelled"),  # scancel: never resurrect
        ({"job_state": "COMPLETING"}, "leave", "cancelled"),
        ({"job_state": "CANCELLED"}, "leave", "cancelled"),
        ({"outcome": "stopped", "job_state": "COMPLETING", "job_reason": "TimeLimit"}, "requeue", "stopped"),
        ({"job_state": "COMPLETING", "job_reason": "TimeLimit"}, "requeue", "timeout"),
        ({"job_state": "COMPLETING", "job_reason": "TimeLimit", "fruitless": 3}, "fail", "gave up"),
        ({"preempted": True, "fruitless": 9}, "requeue", "preempted"),
        ({"outcome": "refused", "reason": "no such thing"}, "fail", "refused"),
        ({}, "requeue", "crashed"),
        ({"exit_code": 7, "fruitless": 2}, "requeue", "crashed"),
        ({"exit_code": 7, "fruitless": 3}, "fail", "gave up"),
        ({"job_state": ""}, "requeue", "crashed"),  # squeue did not answer
    ],
)
def test_the_table(changed: dict[str, Any], do: str, end: str) -> None:
    found = what_next(replace(CRASH, **changed), most=3)
    assert (found.do, found.end) == (do, end)
    if do == "fail":
        assert str(changed.get("reason", changed.get("exit_code", "time limit"))) in found.why


def lines(*events: int | str) -> list[dict[str, Any]]:
    """Steps of starts and names of ends."""
    return [{"step": event} if isinstance(event, int) else {"end": event, "step": 0} for event in events]


@pytest.mark.parametrize(
    ("events", "step", "count"),
    [
        ([], 0, 0),
        ([0], 0, 1),
        ([0], 10, 0),  # it has saved
        ([0, "crashed", 10, "crashed", 10], 10, 2),
        ([10, "crashed", 10, 10], 10, 3),  # a power loss leaves no end
        ([0, "crashed", 0, "stopped", 0], 0, 2),  # asked to stop: says nothing
        ([0, "terminated", 0, "terminated", "crashed", 0], 0, 1),  # by SLURM, before its shell could say how
        ([0, "timeout", 0, "timeout", "cancelled", 0], 0, 3),
        ([0, "cancelled", 0, "cancelled", 0], 0, 1),  # taken away and requeued by SLURM
        ([0, "preempted", 0, "preempted", 0, "bad node", 0], 0, 1),
        ([0, "crashed", 0, "crashed", 0, "crashed", 20, "crashed"], 20, 1),
    ],
)
def test_fruitless_starts(events: list[int | str], step: int, count: int) -> None:
    assert fruitless_starts(lines(*events), step) == count


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run.slurm").mkdir()
    return tmp_path / "run"


def save(run: Path, step: int) -> None:
    (run / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)


def test_a_crash_loop_gives_up_and_says_why(run: Path) -> None:
    for number in (1, 2, 3):
        assert life.start(run, "7", "n1", most=3) is None
        decided = life.end(run, "7", 7, "RUNNING|None|N/A|", most=3)
        assert decided.do == ("fail" if number == 3 else "requeue")
    assert "exit code 7" in decided.why
    assert "3 starts in a row" in decided.why
    assert [line["end"] for line in read_lines(folder_of(run)) if "end" in line] == ["crashed", "crashed", "gave up"]


def test_progress_begins_the_count_anew(run: Path) -> None:
    for step in (10, 20, 30, 40, 50):
        assert life.start(run, "7", "n1", most=2) is None
        save(run, step)
        assert life.end(run, "7", 1, "RUNNING|None|N/A|", most=2).do == "requeue"


def test_power_losses_without_a_checkpoint_give_up_too(run: Path) -> None:
    assert [life.start(run, "7", "n1", most=2) is None for _ in range(3)] == [True, True, False]


def test_another_submission_has_a_count_of_its_own(run: Path) -> None:
    assert [life.start(run, "7", "n1", most=1) is None for _ in range(2)] == [True, False]
    assert life.start(run, "8", "n1", most=1) is None


def test_the_outcome_of_an_earlier_start_does_not_count(run: Path) -> None:
    (folder_of(run) / OUTCOME).write_text(json.dumps({"outcome": "finished"}))
    life.start(run, "7", "n1", most=3)
    assert life.end(run, "7", 1, "RUNNING|None|N/A|", most=3).end == "crashed"


def test_preemption_is_read_from_squeue(run: Path) -> None:
    life.start(run, "7", "n1", most=1)
    assert life.end(run, "7", 143, "RUNNING|None|2026-11-21T13:37:15|\n", most=1).end == "preempted"


@pytest.mark.parametrize(("shown", "more"), [("COMPLETING|None|N/A|", True), ("COMPLETING|TimeLimit|N/A|", False)])
def test_who_is_ended_by_slurm_is_not_to_blame_but_at_the_time_limit(run: Path, shown: str, more: bool) -> None:
    life.start(run, "7", "n1", most=1)
    life.terminated(run, "7", shown)
    assert (life.start(run, "7", "n1", most=1) is None) == more


def test_a_line_cut_by_a_power_loss_is_left_out(run: Path) -> None:
    life.start(run, "7", "n1", most=3)
    with (folder_of(run) / "starts.jsonl").open("a") as file:
        file.write('[]\n"x"\n{"at": "20')
    assert life.start(run, "7", "n1", most=3) is None  # and does not take the next one with it
    assert len(read_lines(folder_of(run))) == 2


def test_a_full_disk_makes_no_failure_of_a_finished_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    life.start(run, "7", "n1", most=3)
    (folder_of(run) / OUTCOME).write_text(json.dumps({"outcome": "finished"}))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(life, "append_line", full)
    assert life.end(run, "7", 0, "RUNNING|None|N/A|", most=3).do == "done"


def words(run: Path, verb: str, *more: str) -> list[str]:
    return [verb, "--run", str(run), "--job", "7", "--most", "2", "--nodes", "n1", *more]


def test_fresh_is_done_once_by_whichever_start_gets_so_far(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(run, 30)
    (run / "config.json").write_text("{}")
    for _ in range(2):
        assert life.main(words(run, "start", "--fresh")) == 0
        save(run, 10)
        assert [path.name for path in sorted(run.parent.glob("run*"))] == ["run", "run.1", "run.slurm"]
        (run / "checkpoints" / "step-00000010").rmdir()
    assert [line["step"] for line in read_lines(folder_of(run))] == [0, 0]
    assert "run.1 now" in capsys.readouterr().out


def test_fresh_refuses_what_is_no_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.mkdir()
    (run / "mine.txt").touch()
    assert life.main(words(run, "start", "--fresh")) == life.NO_MORE
    assert "not a run directory" in capsys.readouterr().out


def test_unfit_nodes_again_and_again_give_up(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes = [life.main(words(run, "bad-nodes")) for _ in range(3)]
    assert codes == [0, 0, life.NO_MORE]
    assert "3 starts in a row nodes were unfit" in capsys.readouterr().out


def bad(run: Path, *more: str) -> list[str]:
    return words(run, "bad-nodes", "--found", "n1: disk: full", *more)


def test_a_job_that_cannot_do_without_the_unfit_node_says_which_and_why(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert life.main(bad(run, "--why-not", "SBATCH_OPTIONS pins n1")) == life.NO_MORE
    told = "unfit: n1: disk: full: the job cannot run without n1: not requeued; SBATCH_OPTIONS pins n1"
    assert told in capsys.readouterr().out
    (line,) = read_lines(folder_of(run), "7")
    assert line["end"] == "gave up"
    assert told in line["why"]


@pytest.mark.parametrize(
    ("nodes", "codes"),
    [("n2", [0, 3]), ("n2,n3", [3])],
)
def test_a_directory_that_nobody_shares_is_not_the_nodes_fault(
    run: Path, capsys: pytest.CaptureFixture[str], nodes: str, codes: list[int]
) -> None:
    """One other node may be to blame, once; two are not."""
    call = [*bad(run, "--unshared", "no other node sees it"), "--nodes", nodes]
    assert [life.main(call) for _ in codes] == codes
    assert "gave up: no other node sees it" in capsys.readouterr().out
    assert read_lines(folder_of(run), "7")[-1]["why"] == "gave up: no other node sees it"


def test_a_node_that_is_unfit_for_another_reason_does_not_count_against_the_directory(run: Path) -> None:
    assert life.main(bad(run)) == 0
    assert life.main(bad(run, "--unshared", "no other node sees it")) == 0
