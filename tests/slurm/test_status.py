"""`python -m slurm status`: what each stage has left, when SLURM has forgotten its job. tests/cluster/ has a real one."""

import json
from pathlib import Path

import pytest

from slurm import status


def test_what_a_finished_stage_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The evaluation and the table of memory lie in RUN.slurm, the export beside RUN; one does not stand for another."""
    monkeypatch.setattr(status, "queue", lambda ids: {})
    monkeypatch.setattr(status, "_ended", lambda job: {})
    run, folder = tmp_path / "run", tmp_path / "run.slurm"
    folder.mkdir()
    results = {
        "evaluate": folder / "evaluation.json",
        "memory": folder / "memory.html",
        "export": tmp_path / "run.safetensors",
    }
    jobs = [{"stage": stage, "job": str(number), "after": None} for number, stage in enumerate(results)]
    (folder / "jobs.json").write_text(json.dumps({"jobs": jobs, "data": str(tmp_path / "corpus"), "elements": []}))
    for stage, result in results.items():
        result.touch()
        found = {row[0]: row[-1] for row in status.rows(run)}
        assert found == {**dict.fromkeys(results, "not begun"), stage: f"{result} is there"}
        result.unlink()
