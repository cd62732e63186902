"""A chain of jobs: checked by SLURM as a whole, then queued as a whole, then recorded."""

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from preprocessing.base.files import write_whole
from preprocessing.base.json_file import write_object
from slurm.records import JOBS, now, read_jobs
from slurm.render import Script
from slurm.request import Request

Job = dict[str, Any]


def sbatch_command(script: Script, folder: Path, after_id: str | None) -> list[str]:
    """What queues a script. A job whose predecessor fails is cancelled, with DependencyNeverSatisfied for a reason, instead
    of waiting for ever."""
    dependency = [f"--dependency=afterok:{after_id}", "--kill-on-invalid-dep=yes"] if after_id else []
    return ["sbatch", "--parsable", *dependency, str(folder / script.file)]


def preview(request: Request, scripts: Sequence[Script]) -> str:
    """Exactly what `submit` would write and run."""
    parts = []
    for script in scripts:
        command = shlex.join(sbatch_command(script, request.folder, f"<id of {script.after}>" if script.after else None))
        parts.append(f"##### {request.folder / script.file}\n{script.text}##### {command}\n")
    return "\n".join(parts)


def submit(request: Request, scripts: Sequence[Script]) -> list[Job]:
    """Queue the scripts; returns their records. ValueError if SLURM refuses one (then none is queued) or if jobs of an
    earlier submission of this run are still in the queue."""
    folder = request.folder
    _check_not_queued(folder)
    for script in scripts:
        _sbatch(["sbatch", "--test-only"], script, script.text)
    folder.mkdir(parents=True, exist_ok=True)
    jobs: list[Job] = []
    try:
        for script in scripts:
            write_whole(folder / script.file, script.text.encode())
            before = next((job["job"] for job in jobs if job["stage"] == script.after), None)
            answer = _sbatch(sbatch_command(script, folder, before), script)
            jobs.append({"stage": script.name, "job": answer.split(";")[0], "after": before})
        write_object(folder / JOBS, {"submitted_at": now(), **_what(request), "jobs": jobs})
    except BaseException:
        if jobs:  # a half chain, or one that nobody knows of, is worse than none
            subprocess.run(["scancel", *(job["job"] for job in jobs)], check=False)
        raise
    return jobs


def _what(request: Request) -> dict[str, Any]:
    elements = list(request.elements()) if request.sweep else []
    return {"recipe": request.recipe, "run": str(request.run), "data": str(request.data), "elements": elements}


def _sbatch(command: list[str], script: Script, text: str | None = None) -> str:
    """What sbatch answers; ValueError with its reason if it refuses."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, env=_environment())
    except FileNotFoundError:
        raise ValueError("no sbatch here: submit from a login node of the cluster; --print shows the jobs anywhere") from None
    if done.returncode:
        lines = [line.removeprefix("sbatch: error: ") for line in done.stderr.strip().splitlines()]
        raise ValueError(f"SLURM refuses {script.name}, nothing is queued: {'; '.join(lines) or done.returncode}")
    return done.stdout.strip()


def ignored_variables() -> list[str]:
    """Those of the user's environment that would go over the options of a script, or hide jobs: they are not passed on."""
    return sorted(name for name in os.environ if name.startswith(("SBATCH_", "SQUEUE_")))


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ignored_variables()}


def _check_not_queued(folder: Path) -> None:
    ids = read_jobs(folder)
    queued = queue(ids) if ids else {}
    if queued:
        names = ", ".join(f"{job} ({state})" for job, (state, _, _, _) in sorted(queued.items()))
        raise ValueError(f"{folder}: already in the queue: {names}; wait for it, or: scancel {' '.join(ids)}")


def queue(ids: Sequence[str]) -> dict[str, tuple[str, str, str, str]]:
    """Of those jobs (and elements of arrays, as JOB_N) that SLURM still works on: state, reason, nodes, time left."""
    command = ["squeue", "--noheader", "--array", "--me", "--format=%i|%F|%T|%r|%N|%L"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    except FileNotFoundError:
        raise ValueError("no squeue here: ask on a login node of the cluster") from None
    if done.returncode:
        raise ValueError(f"squeue does not answer: {' '.join(done.stderr.split())}")
    found = {}
    for line in done.stdout.splitlines():
        job, of_array, *rest = line.split("|")
        if of_array in ids:
            state, reason, nodes, left = rest
            found[job] = (state, reason, nodes, left)
    return found
