"""Where each stage of a run is: from the queue, from what SLURM still knows of ended jobs, and from the run itself."""

import re
import subprocess
import time
from pathlib import Path
from typing import Any

from preprocessing.base.json_file import read_object
from slurm.life import newest_step
from slurm.records import JOBS, folder_of, read_lines, read_submission
from slurm.submit import queue

HEADINGS = ("stage", "job", "state", "nodes", "left", "where it is")


def rows(run_dir: Path) -> list[tuple[str, ...]]:
    """A row a job, or an element of an array; see HEADINGS. ValueError if nothing was submitted for the run."""
    folder = folder_of(run_dir)
    if not (folder / JOBS).exists():
        raise ValueError(f"{folder / JOBS}: not there: no jobs were submitted for {run_dir}; python -m slurm submit does")
    known = read_submission(folder / JOBS)
    queued = queue([job["job"] for job in known["jobs"]])
    return [
        (job["stage"], name, *state, _progress(job["stage"], name, run_dir, known))
        for job in known["jobs"]
        for name, state in (_states(job["job"], queued) or _gone(job, known)).items()
    ]


def _gone(job: dict[str, Any], known: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    """SLURM knows nothing of it any more; what it has left on disk may tell."""
    elements = [f"_{number}" for number in range(len(known["elements"]))] if job["stage"] == "sweep" else [""]
    return {job["job"] + element: ("gone from SLURM's memory", "", "") for element in elements}


def _states(job: str, queued: dict[str, tuple[str, str, str, str]]) -> dict[str, tuple[str, str, str]]:
    """State, nodes and time left of a job, or of each element of it: those in the queue, and those that have ended."""
    own = {
        name: (_with_reason(state, reason), nodes, left)
        for name, (state, reason, nodes, left) in queued.items()
        if re.fullmatch(rf"{job}(_.*)?", name)
    }
    return {**{name: (state, "", "") for name, state in _ended(job).items()}, **own}


def _ended(job: str) -> dict[str, str]:
    """What SLURM still knows (MinJobAge) of a job, or of the elements of an array that have begun."""
    done = subprocess.run(["scontrol", "-o", "show", "job", job], capture_output=True, text=True, check=False)
    found = {}
    for line in done.stdout.splitlines():
        array = re.match(r"JobId=\d+ ArrayJobId=(\d+) ArrayTaskId=(\S+) ", line)
        state = re.search(r" JobState=(\S+) Reason=(\S+) ", line)
        if state and (array is None or array[2].isdigit()):  # the elements that wait are one line of their own
            found[f"{array[1]}_{array[2]}" if array else job] = _with_reason(state[1], state[2])
    return found


def _with_reason(state: str, reason: str) -> str:
    return state if reason in ("None", "NonZeroExitCode", "") else f"{state} ({reason})"


def _progress(stage: str, job: str, run_dir: Path, known: dict[str, Any]) -> str:
    """What the stage has left on disk."""
    data, folder = Path(known["data"]), folder_of(run_dir)
    if stage.startswith("preprocess"):
        if data.exists():
            return f"{data} is built"
        return _last_line(folder / f"{stage}-{job}.log")
    if stage == "sweep":
        name = known["elements"][int(job.rpartition("_")[2])]
        return f"{name}: {_training(run_dir / name)}"
    if stage == "pretrain":
        return _training(run_dir)
    results = {
        "evaluate": folder / "evaluation.json",
        "memory": folder / "memory.html",
        "export": run_dir.with_name(f"{run_dir.name}.safetensors"),
    }
    result = results.get(stage)
    return f"{result} is there" if result and result.exists() else _last_line(folder / f"{stage}-{job}.log")


def _training(run_dir: Path) -> str:
    config, metrics = run_dir / "config.json", run_dir / "metrics.jsonl"
    told = []
    if (run_dir / "summary.json").exists():
        told.append("finished")
    elif config.exists():
        steps = read_object(config)["config"]["train"]["steps"]
        told.append(f"checkpoint at step {newest_step(run_dir):,} of {steps:,}")
        if metrics.exists():
            told.append(f"last metrics {time.time() - metrics.stat().st_mtime:,.0f} s ago")
    lines = read_lines(folder_of(run_dir))
    starts, ends = [line for line in lines if "end" not in line], [line for line in lines if "end" in line]
    if starts:
        told.append(f"{len(starts)} start{'s' if len(starts) > 1 else ''}")
    if ends and ends[-1]["end"] != "finished":
        told.append(f"last end: {ends[-1]['end']}: {ends[-1]['why']}")
    return ", ".join(told) or "not begun"


def _last_line(log: Path) -> str:
    """Of a log, if there is one."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1][:120] if lines else "not begun"


def table(run_dir: Path) -> str:
    """The rows, laid out, and where the logs are."""
    cells = [HEADINGS, *rows(run_dir)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([*lines, "", f"logs and scripts: {folder_of(run_dir)}"])
