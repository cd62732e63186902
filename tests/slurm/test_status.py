"""`python -m slurm status`: what each stage has left, when SLURM has forgotten its job. tests/cluster/ has a real one."""

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from slurm import status
from slurm.records import append_line


def test_what_a_finished_stage_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The evaluation and the table of memory lie in RUN.slurm, the export beside RUN; one does not stand for another."""
    monkeypatch.setattr(status, "queue", lambda ids: {})
    monkeypatch.setattr(status, "_ended", lambda job: {})
    run, folder = tmp_path / "run", tmp_path / "run.slurm"
    folder.mkdir()
    (tmp_path / "run.finetuned").mkdir()
    results = {
        "evaluate": folder / "evaluation.json",
        "finetune": tmp_path / "run.finetuned" / "scorecard.html",
        "memory": folder / "memory.html",
        "export": tmp_path / "run.hf",
    }
    jobs = [{"stage": stage, "job": str(number), "after": None} for number, stage in enumerate(results)]
    (folder / "jobs.json").write_text(json.dumps({"jobs": jobs, "data": str(tmp_path / "corpus"), "elements": []}))
    for stage, result in results.items():
        result.touch()
        found = {row[0]: row[-1] for row in status.rows(run)}
        assert found == {**dict.fromkeys(results, "not begun"), stage: f"{result} is there"}
        result.unlink()


Where = Callable[..., dict[str, str]]
AT = "2026-11-21T15:41:11+01:00"


@pytest.fixture
def forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Where:
    """Of a submission of which SLURM knows nothing, but what `known` gives: job, and where it is."""

    def where(*stages: str, elements: tuple[str, ...] = (), known: Mapping[str, str] | None = None) -> dict[str, str]:
        jobs = [{"stage": stage, "job": str(7 + number), "after": None} for number, stage in enumerate(stages)]
        what = {"jobs": jobs, "data": str(tmp_path / "corpus"), "elements": elements}
        (tmp_path / "run.slurm" / "jobs.json").write_text(json.dumps(what))
        monkeypatch.setattr(status, "_ended", lambda job: known or {})
        rows = status.rows(tmp_path / "run")
        assert all(row[2] == (known or {}).get(row[1], "gone from SLURM's memory") for row in rows)
        return {row[1]: row[-1] for row in rows}

    (tmp_path / "run.slurm").mkdir()
    monkeypatch.setattr(status, "queue", lambda ids: {})
    return where


def train(run: Path, step: int = 20) -> None:
    """What a training of 60 steps leaves on its way."""
    (run / "checkpoints" / f"step-{step:08}").mkdir(parents=True)
    (run / "config.json").write_text('{"config": {"train": {"steps": 60}}}')
    (run / "metrics.jsonl").touch()
    os.utime(run / "metrics.jsonl", (2_000_000_000, 2_000_000_000))


def test_a_forgotten_training_that_has_finished(tmp_path: Path, forgotten: Where) -> None:
    train(tmp_path / "run", 60)
    (tmp_path / "run" / "summary.json").touch()
    assert re.fullmatch(r"finished at \d{4}-\d\d-\d\dT\S+", forgotten("pretrain")["7"])


@pytest.mark.parametrize(
    ("end", "how"), [("stopped", "stopped"), ("cancelled", "stopped"), ("gave up", "failed"), ("refused", "failed")]
)
def test_a_forgotten_training_that_has_ended(tmp_path: Path, forgotten: Where, end: str, how: str) -> None:
    train(tmp_path / "run")
    folder = tmp_path / "run.slurm"
    append_line(folder, {"at": AT, "job": "7", "nodes": "n1", "step": 0})
    append_line(folder, {"at": AT, "job": "7", "end": end, "why": "as it was", "step": 20})
    (folder / "pretrain-7.log").write_text("one\nthe last\n")
    told = forgotten("pretrain")["7"]
    assert told == f"{how} at step 20 of 60 at {AT}: as it was, its log ends with 'the last', 1 start"


@pytest.mark.parametrize(
    ("left", "told"), [(None, "stopped at"), ({"outcome": "refused", "reason": "no such thing"}, "failed at")]
)
def test_a_forgotten_training_whose_end_nobody_recorded(
    tmp_path: Path, forgotten: Where, left: dict[str, str] | None, told: str
) -> None:
    """The time is that of the newest trace."""
    train(tmp_path / "run")
    append_line(tmp_path / "run.slurm", {"at": AT, "job": "7", "nodes": "n1", "step": 0})
    if left:
        (tmp_path / "run.slurm" / "outcome.json").write_text(json.dumps(left))
    found = forgotten("pretrain")["7"]
    assert re.match(rf"{told} step 20 of 60 at 2033-05-1", found)
    assert ("no such thing" in found) == bool(left)


def test_a_forgotten_job_is_not_blamed_for_the_end_of_the_one_before(tmp_path: Path, forgotten: Where) -> None:
    train(tmp_path / "run")
    append_line(tmp_path / "run.slurm", {"at": AT, "job": "3", "nodes": "n1", "step": 0})
    append_line(tmp_path / "run.slurm", {"at": AT, "job": "3", "end": "gave up", "why": "as it was", "step": 20})
    told = forgotten("pretrain")["7"]
    assert told == f"failed at step 20 of 60 at {AT}: as it was, by job 3: 7 has not begun, 1 start"


def test_what_is_no_line_of_a_start_or_an_end_is_left_out(tmp_path: Path, forgotten: Where) -> None:
    train(tmp_path / "run")
    append_line(tmp_path / "run.slurm", {"at": AT, "job": "7", "nodes": "n1", "step": 0})
    append_line(tmp_path / "run.slurm", {"at": AT, "job": "7", "end": "cancelled", "step": 20})
    append_line(tmp_path / "run.slurm", {"job": "7", "step": 20})
    assert re.fullmatch(r"stopped at step 20 of 60 at 2033-05-1\S+, 1 start", forgotten("pretrain")["7"])


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("run/config.json", '{"config": {}}', "no train.steps"),
        ("run/config.json", '{"config": 1}', "no train.steps"),
        ("run.slurm/outcome.json", '{"outcome', "not valid JSON"),
    ],
)
def test_a_damaged_file_is_named_where_it_matters(tmp_path: Path, forgotten: Where, file: str, text: str, told: str) -> None:
    train(tmp_path / "run")
    append_line(tmp_path / "run.slurm", {"at": AT, "job": "7", "nodes": "n1", "step": 0})
    (tmp_path / file).write_text(text)
    found = forgotten("pretrain", "export")
    assert str(tmp_path / file) in found["7"]
    assert told in found["7"]
    assert found["8"] == "not begun"


def test_a_forgotten_job_that_got_no_further_than_its_log(tmp_path: Path, forgotten: Where) -> None:
    for stage, name in (("pretrain", "pretrain-7"), ("export", "export-8")):
        (tmp_path / "run.slurm" / f"{name}.log").write_text(f"{stage}: module: command not found\n")
    (tmp_path / "run.slurm" / "evaluate-9.log").touch()
    assert forgotten("pretrain", "export", "evaluate", "memory") == {
        "7": "pretrain: module: command not found",
        "8": "export: module: command not found",
        "9": f"begun; {tmp_path}/run.slurm/evaluate-9.log is empty",
        "10": "not begun",
    }


def test_forgotten_elements_of_arrays_stand_beside_those_that_slurm_knows(tmp_path: Path, forgotten: Where) -> None:
    for number in (0, 2, 10):
        (tmp_path / "run.slurm" / f"preprocess-shard-7_{number}.log").write_text(f"shard {number}\n")
    train(tmp_path / "run" / "lr=2")
    told = forgotten("preprocess-shard", known={"7_2": "FAILED"})
    assert told == {"7_0": "shard 0", "7_2": "shard 2", "7_10": "shard 10"}
    sweep = forgotten("sweep", elements=("lr=1", "lr=2"), known={"7_0": "PENDING"})
    assert sweep["7_0"] == "lr=1: not begun"
    assert sweep["7_1"].startswith("lr=2: stopped at step 20 of 60 at 2033-05-1")
