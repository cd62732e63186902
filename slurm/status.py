"""Where each stage of a run is: from the queue, from what SLURM still knows of ended jobs, and from the run itself."""

import re
import subprocess
import time
from pathlib import Path
from typing import Any

from pipeline.json_file import read_object
from slurm.life import newest_step
from slurm.records import JOBS, folder_of, read_lines
from slurm.submit import queue

HEADINGS = ("stage", "job", "state", "nodes", "left", "where it is")


def rows(run_dir: Path) -> list[tuple[str, ...]]:
    """A row a job, or an element of an array; see HEADINGS. ValueError if nothing was submitted for the run."""
    folder = folder_of(run_dir)
    if not (folder / JOBS).exists():
        raise ValueError(f"{folder / JOBS}: not there: no jobs were submitted for {run_dir}; python -m slurm submit does")
    known = read_object(folder / JOBS, required=("jobs", "data", "elements"))
    queued = queue([job["job"] for job in known["jobs"]])
    found: list[tuple[str, ...]] = []
    for job in known["jobs"]:
        own = {name: values for name, values in queued.items() if re.fullmatch(rf"{job['job']}(_.*)?", name)}
        for name, (state, reason, nodes, left) in own.items():
            told = _progress(job["stage"], name, run_dir, known)
            because = f" ({reason})" if reason not in ("None", "") else ""
            found.append((job["stage"], name, f"{state}{because}", nodes, left, told))
        if not own or job["stage"] == "preprocess-shard":
            found += [
                (job["stage"], name, state, "", "", _progress(job["stage"], name, run_dir, known))
                for name, state in _ended(job["job"]).items()
                if name not in own
            ]
    return found


def _ended(job: str) -> dict[str, str]:
    """Job, or each element of it, with the state in which it ended; "gone" when SLURM has forgotten it (MinJobAge)."""
    done = subprocess.run(["scontrol", "-o", "show", "job", job], capture_output=True, text=True, check=False)
    found = {}
    for line in done.stdout.splitlines():
        array = re.match(r"JobId=\d+ ArrayJobId=(\d+) ArrayTaskId=(\d+) ", line)
        state = re.search(r" JobState=(\S+) Reason=(\S+) ", line)
        if state:
            because = f" ({state[2]})" if state[2] not in ("None", "NonZeroExitCode") else ""
            found[f"{array[1]}_{array[2]}" if array else job] = state[1] + because
    return found or {job: "gone from SLURM's memory"}


def _progress(stage: str, job: str, run_dir: Path, known: dict[str, Any]) -> str:
    """What the stage has left on disk."""
    data, folder = Path(known["data"]), folder_of(run_dir)
    if stage.startswith("preprocess"):
        if data.exists():
            return f"{data} is built"
        return _last_line(folder / f"{stage}-{job}.log")
    if stage == "sweep":
        number = job.rpartition("_")[2]
        if not number.isdigit():
            return f"{len(known['elements'])} runs"
        name = known["elements"][int(number)]
        return f"{name}: {_training(run_dir / name)}"
    if stage == "pretrain":
        return _training(run_dir)
    result = folder / "evaluation.json" if stage == "evaluate" else run_dir.with_name(f"{run_dir.name}.safetensors")
    return f"{result} is there" if result.exists() else _last_line(folder / f"{stage}-{job}.log")


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
