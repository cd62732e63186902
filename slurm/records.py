"""What lies in RUN.slurm/, beside the run: scripts and logs, which jobs there are, how each start of them went.

    RUN.slurm/
      pretrain.sbatch  pretrain-17.log  …    what was submitted; one log a job, over all its starts
      jobs.json                              the jobs of the newest submission, in their order
      starts.jsonl                           a line for each start of the training job, and for each end it lived to see
      outcome.json                           how the last start ended, as `pipeline pretrain --outcome` says it

It is not in RUN itself, for RUN is the program's, and --fresh puts it aside.
"""

import contextlib
import datetime
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from preprocessing.base.json_file import read_object

JOBS, STARTS, OUTCOME = "jobs.json", "starts.jsonl", "outcome.json"


def folder_of(run_dir: Path) -> Path:
    """RUN.slurm."""
    return run_dir.with_name(run_dir.name + ".slurm")


def now() -> str:
    """Local time, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def append_line(folder: Path, values: Mapping[str, Any]) -> None:
    """One more line of starts.jsonl, on disk before this returns."""
    with (folder / STARTS).open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps(values) + "\n")  # the line before may be cut off
        file.flush()
        os.fsync(file.fileno())


def read_lines(folder: Path, job: str | None = None) -> list[dict[str, Any]]:
    """The lines of starts.jsonl, of one job or of all. What is no such line, as one cut off by a power loss, is left out."""
    path = folder / STARTS
    lines: Sequence[str] = path.read_text(encoding="utf-8").splitlines() if path.exists() else ()
    found = []
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    keys = {"at", "job", "step"}
    whole = [line for line in found if isinstance(line, dict) and keys | ({"why"} if "end" in line else set()) <= line.keys()]
    return [line for line in whole if job is None or line["job"] == job]


def read_jobs(folder: Path) -> list[str]:
    """The ids of the newest submission's jobs; none if there is none."""
    path = folder / JOBS
    return [job["job"] for job in read_submission(path)["jobs"]] if path.exists() else []


def read_submission(path: Path) -> dict[str, Any]:
    """What jobs.json holds; ValueError if it is damaged."""
    found = read_object(path, required=("jobs", "data", "elements"))
    if not all(isinstance(job, dict) and {"stage", "job"} <= job.keys() for job in found["jobs"]):
        raise ValueError(
            f"{path}: damaged: a job without stage or id; move it away (squeue and the logs beside it tell the rest)"
        )
    return found
