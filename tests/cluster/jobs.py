"""Runs that are submitted to the test cluster with the real program, and what they leave."""

import contextlib
import io
import json
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from slurm.__main__ import main
from slurm.records import folder_of, read_lines
from tests.cluster.cluster import Cluster
from tests.helpers.running import ROOT, SMALL, set_options

FAULTS = ROOT / "tests" / "cluster" / "faults"
MIDDLE = "step-00000020"  # as in faults/sitecustomize.py
STEPS = 60
RUN: Sequence[str] = (
    *SMALL,
    *set_options(
        train__steps=STEPS,
        train__log_every_steps=1,
        train__eval_every_steps=30,
        train__checkpoint_every_steps=20,
        train__timeout_s=30,
        model__score_offset=1.5,
    ),
)
SITE = {"GPUS_PER_NODE": "0", "RANKS_PER_NODE": "1", "NODES": "2", "TIME": "30", "CPU_TIME": "10", "WARNING_S": "60"}


@dataclass(frozen=True)
class Submitted:
    """A submission: `jobs` by stage."""

    cluster: Cluster
    run: Path
    jobs: Mapping[str, str]
    said: str

    def log(self, stage: str = "pretrain") -> str:
        """Of a stage's job; "" before it has begun."""
        file = folder_of(self.run) / f"{stage}-{self.jobs[stage]}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def ends(self) -> list[str]:
        """How each start of the training ended."""
        return [line["end"] for line in read_lines(folder_of(self.run)) if "end" in line]

    def starts(self) -> list[dict[str, Any]]:
        """The starts of the training."""
        return [line for line in read_lines(folder_of(self.run)) if "end" not in line]

    def wait(self, *states: str, stage: str = "pretrain", timeout_s: float = 120) -> dict[str, str]:
        """Until the stage's job is in one of the states."""
        return self.cluster.wait(self.jobs[stage], *states, timeout_s=timeout_s)

    def wait_for_middle(self, timeout_s: float = 60) -> None:
        """Until the checkpoint is there at which faults/sitecustomize.py does its work."""
        middle = self.run / "checkpoints" / MIDDLE
        self.cluster.wait_until(middle.exists, timeout_s, self.log)

    def nodes(self) -> list[str]:
        """On which the training runs, rank 0's first."""
        nodes = self.wait("RUNNING", "COMPLETED")["NodeList"]
        return self.cluster.run("scontrol", "show", "hostnames", nodes).stdout.split()

    def status(self) -> str:
        """What `python -m slurm status` says."""
        return program(self.cluster, "status", "--run", self.run)


def program(cluster: Cluster, *words: str | Path, refused: bool = False) -> str:
    """`python -m slurm …` as on the head, in this process, which has all imported: what it prints, or its refusal."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setenv("PATH", f"{shims(cluster)}:{os.environ['PATH']}")
        code = main([str(word) for word in words])
    assert code == (2 if refused else 0), out.getvalue() + err.getvalue()
    return err.getvalue() if refused else out.getvalue()


def shims(cluster: Cluster) -> Path:
    """A folder with SLURM's commands, which run on the head."""
    folder = cluster.directory / "bin"
    if not folder.exists():
        folder.mkdir()
        for command in ("sbatch", "squeue", "scancel", "scontrol"):
            enter = shlex.join([*cluster.enter("head"), "env", f"PATH={os.environ['PATH']}"])
            (folder / command).write_text(f'#!/bin/sh\nexec {enter} --chdir="$PWD" {shutil.which(command)} "$@"\n')
            (folder / command).chmod(0o755)
    return folder


def submission(run: Path, data: Path, *more: str | Path, site: Mapping[str, str] = SITE) -> list[str | Path]:
    """The words after `python -m slurm`."""
    settings = [word for key, value in site.items() for word in ("--site", f"{key}={value}")]
    return ["submit", "--recipe", "tiny", "--data", data, "--run", run, *RUN, *settings, *more]


def submit(cluster: Cluster, run: Path, data: Path, *more: str | Path, site: Mapping[str, str] = SITE) -> Submitted:
    """Queue it."""
    said = program(cluster, *submission(run, data, *more, site=site))
    return submitted(cluster, run, said)


def submitted(cluster: Cluster, run: Path, said: str) -> Submitted:
    """The newest submission of a run, of which submit said this."""
    jobs = json.loads((folder_of(run) / "jobs.json").read_text())["jobs"]
    return Submitted(cluster, run, {job["stage"]: job["job"] for job in jobs}, said)


def with_fault(fault: str) -> dict[str, str]:
    """The site, whose rank 1 has a fault (faults/sitecustomize.py)."""
    return {**SITE, "SETUP": f"'export FAULT={fault} PYTHONPATH={FAULTS}'"}


QUICK, SLOW = with_fault("none"), with_fault("slow")
