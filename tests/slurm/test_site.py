"""slurm/site.env: read without executing anything, and refused line by line."""

import re
from pathlib import Path

import pytest

from slurm.sbatch_options import NAMES, REFUSED, SHORT, meant, notes
from slurm.site import Site, limit_s, options_of, read_site

EXAMPLE = Path(__file__).parent.parent.parent / "slurm" / "site.env.example"


def site(tmp_path: Path, text: str, *overrides: str) -> Site:
    (tmp_path / "site.env").write_text(text)
    return read_site(tmp_path / "site.env", overrides)


def test_the_example_shows_the_defaults_and_every_key() -> None:
    assert read_site(EXAMPLE) == Site()
    shown = [line[1:].split()[0] for line in EXAMPLE.read_text().splitlines() if re.match("#[A-Z_]+=", line)]
    keys = {line.partition("=")[0].lower() for line in shown}
    assert set(vars(Site())) <= keys
    for line in shown:
        key, _, value = line.partition("=")
        if key.lower() not in ("sbatch_options", "setup", "container", "python"):
            assert str(getattr(Site(), key.lower())).removesuffix(".0") == value, line


def test_values_are_quoted_as_in_a_shell_and_overridden(tmp_path: Path) -> None:
    text = "# a comment\n\nACCOUNT=lab-7\nCONTAINER='apptainer exec --nv a.sif'  # why\nSETUP='one x'\nSETUP='two y'\n"
    found = site(tmp_path, text, "ACCOUNT=lab-8", "NODES=4")
    assert (found.account, found.container, found.nodes) == ("lab-8", "apptainer exec --nv a.sif", 4)
    assert found.setup == ("one x", "two y")
    assert found.world_size == 32


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ACOUNT=x", "did you mean 'ACCOUNT'"),
        ("account=x", "ACCOUNT"),
        ("export ACCOUNT=x", "KEY=VALUE"),
        ("ACCOUNT=a b", "2 words"),
        ("ACCOUNT='a b'", "a word"),
        ("ACCOUNT=$(touch pwned)", "2 words"),
        ("PARTITION='$(id)'", "a word"),
        ("NODES=two", "whole number"),
        ("NODES=0", "at least one"),
        ("NODES=-1", "0 or more"),
        ("SETUP='unclosed", "quot"),
        ("TIME=soon", "time limit"),
        ("TIME=0:05:00", "WARNING_S=300"),
        ("GPUS_PER_NODE=0", "RANKS_PER_NODE"),
        ("GPU_OPTION=gpus", "gres"),
        ("SBATCH_OPTIONS='-p x'", "long options"),
        ("MOST_FRUITLESS_STARTS=0", "at least 1"),
        ("NODES=1\nNODES=2", "twice"),
    ],
)
def test_a_bad_line_is_refused(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        site(tmp_path, line + "\n")
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("5:30", 330),
        ("24:00:00", 86400),
        ("2-0", 172800),
        ("1-12", 129600),
        ("1-1:30", 91800),
        ("1-0:0:5", 86405),
    ],
)
def test_time_limits(text: str, seconds: int) -> None:
    assert limit_s(text) == seconds


def test_a_constraint_has_a_syntax_of_its_own(tmp_path: Path) -> None:
    assert site(tmp_path, "CONSTRAINT='[a100|h100]&ib'\n").constraint == "[a100|h100]&ib"


def test_options_for_all_jobs(tmp_path: Path) -> None:
    assert options_of(site(tmp_path, "SBATCH_OPTIONS='--exclusive --comment=\"a b\"'\n")) == ["--exclusive", "--comment=a b"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--array=0-3", "use --sweep"),
        ("--array 0-3", "use --sweep"),
        ("-a 0-3", "-a (--array): each element would train in the same run directory; use --sweep"),
        ("-a0-3", "(--array)"),
        ("--arr=0-3", "--arr=0-3 (--array)"),
        ("--exclusive --no-requeue", "--no-requeue: the job could not go back"),
        ("--no-r", "(--no-requeue)"),
        ("--output=x.log", "leave it out"),
        ("-o x.log", "(--output)"),
        ("--err=x.log", "(--error)"),
        ("--open-mode=truncate", "each start would delete"),
        ("--export=NONE", "SETUP"),
        ("--export NONE", "SETUP"),
        ("--export=NIL", "SETUP"),
        ("--export=PATH,SMALL=1", "SETUP"),
        ("--export-file=env", "SETUP"),
        ("--signal=B:USR1@60", "WARNING_S"),
        ("-d afterok:7", "(--dependency)"),
        ("--time=5", "use TIME"),
        ("--nodes=3", "use NODES"),
        ("-N3", "use NODES"),
        ("--ntasks=3", "RANKS_PER_NODE"),
        ("--ntasks-per-node=3", "RANKS_PER_NODE"),
        ("--tasks-per-n=3", "RANKS_PER_NODE"),
        ("--gres=lustre:1,gpu:8", "GPUS_PER_NODE"),
        ("--gres=GPU:8", "GPUS_PER_NODE"),
        ("--tres-per-task=cpu:2,gres/gpu:1", "GPUS_PER_NODE"),
        ("-G 8", "GPUS_PER_NODE"),
        ("--gpus-per-t=1", "(--gpus-per-task): it would be asked of every job"),
        ("--wrap=true", "a job"),
        ("--test-only", "a job"),
        ("--parsable", "its id"),
        ("-W", "`python -m slurm status`"),
        ("-M other", "login node"),
        ("--no-kill", "loss of a node"),
        ("--chdir=/", "from where submit is called"),
        ("-w n2", "long options"),
        ("--nodelist n2", "long options"),
        ("--gres lustre:1", "long options"),
    ],
)
def test_an_option_that_breaks_the_job_is_refused(tmp_path: Path, options: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"\ASBATCH_OPTIONS: .*" + re.escape(words)) as refusal:
        site(tmp_path, f"SBATCH_OPTIONS='{options}'\n")
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize(
    "option",
    [
        *(
            "--exclusive",
            "--mail-type=FAIL",
            "--hold",
            "--requeue",
            "--nodelist=n2",
            "--nodel=n2",
            "--nodefile=f",
            "--exclude=n1",
        ),
        *("--export=ALL", "--export=SMALL=1,ALL", "--open-mode=append", "--gres=lustre:1", "--mem=4G", "--mem-per-cpu=1G"),
        "--tres-per-task=cpu:2",
        *("--partition=p", "--reservation=r", "--wait-all-nodes=1", "--time-min=5", "--begin=now+1hour", "--of-a-plugin=x"),
    ],
)
def test_an_option_that_does_no_harm_is_taken(tmp_path: Path, option: str) -> None:
    assert options_of(site(tmp_path, f"SBATCH_OPTIONS='{option}'\n")) == [option]


def test_every_option_that_is_judged_is_one() -> None:
    assert REFUSED.keys() | set(SHORT.values()) <= NAMES
    assert all(meant(f"--{name}") == [name] for name in NAMES)
    assert all(meant(f"-{letter}") == [name] for letter, name in SHORT.items())


def test_what_overrides_is_said(tmp_path: Path) -> None:
    settings = "PARTITION=gpu\nCPU_PARTITION=cpu\nMEMORY_PER_NODE=480G\nGPU_OPTION=gres\n"
    options = "--exclusive --part=p --qos=q --mem=1G --mem-per-c=1G --job-name=x --gres=lustre:1 --nodel=n2 --time-m=5"
    found = site(tmp_path, f"{settings}SBATCH_OPTIONS='{options}'\n")
    assert notes(options_of(found), vars(found)) == [
        "--part=p goes over PARTITION=gpu, CPU_PARTITION=cpu",
        "MEMORY_PER_NODE=480G goes over --mem=1G",
        "MEMORY_PER_NODE=480G goes over --mem-per-c=1G",
        "--job-name=x is the name of all jobs: STAGE RUN is not",
        "--gres=lustre:1 is not asked of jobs with GPUs: their --gres goes over it",
        "--nodel=n2 pins nodes: a job of which one is unfit fails, for it cannot go on elsewhere",
        "--time-m=5 lets SLURM shorten TIME: of a job of WARNING_S or less nothing is left to train in",
    ]
