"""Where each stage of a run is: from the queue, from what SLURM still knows of ended jobs, and from the run itself."""

import datetime
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.run.metrics_file import METRICS
from preprocessing.base.command_line import one_line
from preprocessing.base.json_file import read_object
from slurm.life import newest_step
from slurm.records import JOBS, OUTCOME, folder_of, read_lines, read_submission
from slurm.submit import queue

SUMMARY, CONFIG = "summary.json", "config.json"
GONE = ("gone from SLURM's memory", "", "")
FAILED_ENDS = ("gave up", "refused", "crashed")  # of starts.jsonl
HEADINGS = ("stage", "job", "state", "nodes", "left", "where it is")


def rows(run_dir: Path) -> list[tuple[str, ...]]:
    """A row a job, or an element of an array; see HEADINGS. ValueError if nothing was submitted for the run."""
    folder = folder_of(run_dir)
    if not (folder / JOBS).exists():
        raise ValueError(f"{folder / JOBS}: not there: no jobs were submitted for {run_dir}; python -m slurm submit does")
    known = read_submission(folder / JOBS)
    queued = queue([job["job"] for job in known["jobs"]])
    return [
        (job["stage"], name, *state, _where(job["stage"], name, run_dir, known, forgotten=state is GONE))
        for job in known["jobs"]
        for name, state in _all_states(job, known, folder, _states(job["job"], queued)).items()
    ]


def _all_states(
    job: dict[str, Any], known: dict[str, Any], folder: Path, found: dict[str, tuple[str, str, str]]
) -> dict[str, tuple[str, str, str]]:
    """What is found of a job or its elements, and GONE for those of which SLURM knows nothing any more."""
    if job["stage"] == "sweep":
        numbers = list(range(len(known["elements"])))
    else:  # how many elements the shards have, only their logs tell
        logs = folder.glob(f"{job['stage']}-{job['job']}_*.log")
        numbers = sorted(int(number) for log in logs if (number := log.stem.rpartition("_")[2]).isdigit())
    expected = [f"{job['job']}_{number}" for number in numbers]
    return {**dict.fromkeys(expected, GONE), **found} or {job["job"]: GONE}


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


def _where(stage: str, job: str, run_dir: Path, known: dict[str, Any], forgotten: bool) -> str:
    """`_progress`, or which of its files is damaged: the other stages are told all the same."""
    try:
        return _progress(stage, job, run_dir, known, forgotten)
    except (ValueError, OSError) as error:
        return one_line(error)


def _progress(stage: str, job: str, run_dir: Path, known: dict[str, Any], forgotten: bool) -> str:
    """What the stage has left on disk. `forgotten`: nobody but the disk knows how it ended."""
    data, folder = Path(known["data"]), folder_of(run_dir)
    log = folder / f"{stage}-{job}.log"
    if stage.startswith("preprocess"):
        return f"{data} is built" if data.exists() else _last_line(log)
    if stage == "sweep":
        name = known["elements"][int(job.rpartition("_")[2])]
        return f"{name}: {_training(run_dir / name, job, log, forgotten)}"
    if stage == "pretrain":
        return _training(run_dir, job, log, forgotten)
    results = {
        "evaluate": folder / "evaluation.json",
        "memory": folder / "memory.html",
        "finetune": run_dir.with_name(f"{run_dir.name}.finetuned") / "scorecard.html",
        "export": run_dir.with_name(f"{run_dir.name}.hf"),
    }
    result = results.get(stage)
    return f"{result} is there" if result and result.exists() else _last_line(log)


def _training(run_dir: Path, job: str, log: Path, forgotten: bool) -> str:
    """Where a training is; how it ended, if the job is `forgotten`, and in which job, if it was another one."""
    lines = read_lines(folder_of(run_dir))
    starts, ends = [line for line in lines if "end" not in line], [line for line in lines if "end" in line]
    told = _how_it_ended(run_dir, log, lines) if forgotten else _how_it_goes(run_dir)
    if forgotten and lines and lines[-1]["job"] != job:
        told.append(f"by job {lines[-1]['job']}: {job} has not begun")
    if starts:
        told.append(f"{len(starts)} start{'s' if len(starts) > 1 else ''}")
    if ends and ends[-1]["end"] != "finished" and not forgotten:
        told.append(f"last end: {ends[-1]['end']}: {ends[-1]['why']}")
    return ", ".join(told) or _last_line(log)


def _how_it_goes(run_dir: Path) -> list[str]:
    if (run_dir / SUMMARY).exists():
        return ["finished"]
    if not (run_dir / CONFIG).exists():
        return []
    metrics = run_dir / METRICS
    last = [f"last metrics {time.time() - metrics.stat().st_mtime:,.0f} s ago"] if metrics.exists() else []
    return [f"checkpoint at step {newest_step(run_dir):,} of {_steps(run_dir)}", *last]


def _how_it_ended(run_dir: Path, log: Path, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """As the directory shows it: "finished at TIME"; or "stopped (or failed) at step N of M at TIME: why" and the last line of
    the log; nothing if it shows nothing. `lines`: of starts.jsonl. The step is the newest checkpoint's."""
    if (run_dir / SUMMARY).exists():
        return [f"finished at {_time_of(run_dir / SUMMARY)}"]
    of = f" of {_steps(run_dir)}" if (run_dir / CONFIG).exists() else ""
    if not of and not lines:
        return []
    end, why, at = _last_end(run_dir, lines)
    how = "failed" if end in FAILED_ENDS else "stopped"
    told = f"{how} at step {newest_step(run_dir):,}{of} at {at}{f': {why}' * bool(why)}"
    return [told, f"its log ends with {_last_line(log)!r}"] if log.exists() else [told]


def _last_end(run_dir: Path, lines: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    """Name, reason and time of the last end: as recorded, or, if nobody lived to record it, as the program left it."""
    last, outcome = lines[-1] if lines else {}, folder_of(run_dir) / OUTCOME
    if "end" in last:
        return last["end"], last["why"], last["at"]
    left = read_object(outcome) if outcome.exists() else {}
    traces = [file for file in (run_dir / METRICS, run_dir / CONFIG, outcome) if file.exists()]
    at = _time_of(max(traces, key=lambda file: file.stat().st_mtime)) if traces else last["at"]
    return left.get("outcome", ""), left.get("reason", ""), at


def _steps(run_dir: Path) -> str:
    path = run_dir / CONFIG
    try:
        return f"{int(read_object(path, required=('config',))['config']['train']['steps']):,}"
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: no train.steps in it: the file is damaged or of another version") from error


def _time_of(file: Path) -> str:
    """When it was last written: local time, to the second."""
    return datetime.datetime.fromtimestamp(file.stat().st_mtime).astimezone().isoformat(timespec="seconds")


def _last_line(log: Path) -> str:
    """Of a log, if there is one."""
    if not log.exists():
        return "not begun"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:120] if lines else f"begun; {log} is empty"


def table(run_dir: Path) -> str:
    """The rows, laid out, and where the logs are."""
    cells = [HEADINGS, *rows(run_dir)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([*lines, "", f"logs and scripts: {folder_of(run_dir)}"])
