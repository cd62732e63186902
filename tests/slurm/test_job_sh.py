"""Functions of slurm/job.sh, run by a real bash with SLURM's commands played by shell functions: for what the test cluster,
without accounting and with one controller, does not do."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers.running import ROOT

PLAYED = """
scontrol() {
    case $* in
    'show hostnames '*) tr , '\\n' <<<"$3" ;;
    *) echo "JobId=3 JobName=a ReqNodeList=${REQUIRED:-(null)} ExcNodeList=${EXCLUDED:-(null)} NodeList=n1 Command=/a b" ;;
    esac
}
sbatch() { # refuses WITH and WITHOUT an exclusion
    echo "$*" >>"$CALLS"
    case $* in *--exclude=*) said=$WITH ;; *) said=$WITHOUT ;; esac
    [ -z "$said" ] || { echo "$said" >&2; return 1; }
}
repo=. script=the.sbatch
. slurm/job.sh
"""


def in_job(command: str, **variables: object) -> str:
    """What a command says after job.sh has been sourced."""
    settings = {"SLURM_JOB_NODELIST": "n1", "SLURM_JOB_ID": "3", "WITH": "", "WITHOUT": "", "CALLS": "/dev/null"}
    environment = {**os.environ, **settings, **{name: str(value) for name, value in variables.items()}}
    done = subprocess.run(
        ["bash", "-c", PLAYED + command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout


NO_NODES = "allocation failure: Requested node configuration is not available"
LIMIT = "allocation failure: Job violates accounting/QOS policy"
AWAY = "allocation failure: Unable to contact slurm controller (connect failure)"


@pytest.mark.parametrize(
    ("required", "answers", "why"),
    [
        ("n2", ("", ""), "SBATCH_OPTIONS pins n2 (--nodelist or --nodefile): take it out there, and submit again\n"),
        ("n1,n2", ("", ""), "SBATCH_OPTIONS pins n2 (--nodelist or --nodefile): take it out there, and submit again\n"),
        ("n22", ("", ""), ""),
        ("", ("", ""), ""),
        ("", (NO_NODES, ""), f"SLURM: {NO_NODES}\n"),
        ("", (NO_NODES, NO_NODES), f"SLURM: {NO_NODES}\n"),  # for the moment another node is missing, too
        ("", (LIMIT, LIMIT), ""),  # the job itself is what the limit is full of
        ("", (LIMIT, ""), f"SLURM: {LIMIT}\n"),
        ("", (AWAY, ""), ""),
    ],
)
def test_why_a_job_cannot_start_without_a_node(required: str, answers: tuple[str, str], why: str) -> None:
    assert in_job("why_not_without n2", REQUIRED=required, WITH=answers[0], WITHOUT=answers[1]) == why


def test_nodes_that_are_avoided_already_are_asked_about_too(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    in_job("why_not_without n2,n3", EXCLUDED="n[5-6]", CALLS=calls)
    assert calls.read_text() == "--test-only --exclude=n2,n3,n[5-6] the.sbatch\n"


def test_the_steps_of_a_job_get_what_its_shell_sets() -> None:
    """Whatever the user's shell says of srun: by SLURM_EXPORT_ENV=NONE it would hand on nothing, and say it elsewhere."""
    said = dict.fromkeys(("SLURM_EXPORT_ENV", "SRUN_EXPORT_ENV", "SLURM_STDOUTMODE", "SLURM_STDERRMODE"), "NONE")
    assert in_job("env | grep -E '^(S[A-Z]*_EXPORT_ENV|SLURM_STD[A-Z]*|PIPELINE_HOSTS)='", **said) == "PIPELINE_HOSTS=n1\n"
