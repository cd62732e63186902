"""Output of any encoding, closed, full or unread undoes nothing that a program does; and who speaks when it fails."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.__main__ import make_parser as pipeline_parser
from preprocessing.__main__ import make_parser as preprocessing_parser
from preprocessing.base.command_line import Parser, RankError, run
from slurm.__main__ import make_parser as slurm_parser
from tests.helpers.running import ROOT, worker_environment

PROGRAM = """
import sys
from preprocessing.base.command_line import Parser, run

def verb(args):
    for _ in range(args.lines):
        print("‖x‖ \\udcff " + "n" * 100)
    open(args.file, "w").write("done")

parser = Parser(prog="p", description="‖x‖")
parser.add_argument("file")
parser.add_argument("--lines", type=int, default=1)
parser.is_for(work_counts=sys.argv.pop(1) == "work")
parser.set_defaults(run=verb)
sys.exit(run(parser, None))
"""


def shell(kind: str, file: Path, redirection: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program above in a shell; its exit code is the result's."""
    words = f'{sys.executable} -c "$PROGRAM" {kind} {file} {" ".join(options)} {redirection}'
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {words}"],
        cwd=ROOT,
        env=worker_environment(PROGRAM=PROGRAM, **environment),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "utf-16"])
def test_what_an_encoding_cannot_hold_is_replaced(tmp_path: Path, encoding: str) -> None:
    for kind in ("work", "table"):
        done = shell(kind, tmp_path / kind, "", PYTHONIOENCODING=encoding)
        assert (done.returncode, done.stderr) == (0, "")
    assert encoding != "ascii" or done.stdout == f"?x? ? {'n' * 100}\n"
    assert shell("work", tmp_path / "f", "", "--help", PYTHONIOENCODING=encoding).returncode == 0


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", "2>&- >&-", ">/dev/full 2>&1", "<&-", "| head -1", "| true"])
@pytest.mark.parametrize("lines", [1, 3000])
def test_work_is_done_whatever_becomes_of_its_output(tmp_path: Path, redirection: str, lines: int) -> None:
    done = shell("work", tmp_path / "file", redirection, "--lines", str(lines))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_text() == "done"
    told = "p: the work is done, but not all of its output could be written"
    assert [line.startswith(told) for line in done.stderr.splitlines()] == [True] * (redirection == ">/dev/full")


@pytest.mark.parametrize("lines", [1, 3000])
def test_a_table_that_nobody_gets_is_an_error_and_one_that_was_enough_is_none(tmp_path: Path, lines: int) -> None:
    full = shell("table", tmp_path / "file", ">/dev/full", "--lines", str(lines))
    assert full.returncode == 2
    assert full.stderr.count("\n") == 1
    assert "No space left on device" in full.stderr
    enough = shell("table", tmp_path / "file", "| head -1", "--lines", str(lines))
    assert (enough.returncode, enough.stderr) == (0, "")
    assert shell("table", tmp_path / "file", ">/dev/full", "--help").returncode == 0


@pytest.mark.parametrize("launcher", [{"SLURM_PROCID": "3"}, {"RANK": "3"}])
@pytest.mark.parametrize("collective", [True, False])
def test_every_rank_of_independent_tasks_speaks_and_of_collective_ones_the_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], launcher: dict[str, str], collective: bool
) -> None:
    def failing(error: Exception) -> Parser:
        def verb(args: argparse.Namespace) -> None:
            raise error

        parser = Parser(prog="p")
        parser.is_for(collective=collective)
        parser.set_defaults(run=verb)
        return parser

    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    assert run(failing(ValueError("wrong")), []) == 2
    assert capsys.readouterr().err == ("" if collective else "p: error: wrong\n")
    with pytest.raises(SystemExit, match="2"):
        run(failing(ValueError()), ["--unknown"])
    assert bool(capsys.readouterr().err) != collective
    assert run(failing(RankError("mine")), []) == 2
    assert "mine" in capsys.readouterr().err


def test_which_programs_are_which() -> None:
    place = ["--recipe", "tiny", "--data", "d", "--run", "r"]
    wanted = {
        ("pretrain", *place): (True, True),
        ("certify",): (True, True),
        ("report", "--run", "r"): (False, True),
        ("evaluate", "--run", "r"): (False, False),
        ("checkpoint", "list", "r"): (False, False),
    }
    for words, expected in wanted.items():
        found = pipeline_parser().parse_args(words)
        assert (found.collective, found.work_counts) == expected, words
    for words, work_counts in ((["shard", "--out", "o"], True), (["finalize", "--out", "o"], True), (["inspect", "o"], False)):
        found = preprocessing_parser().parse_args(words)
        assert (found.collective, found.work_counts) == (False, work_counts), words
    assert slurm_parser().parse_args(["submit", *place]).work_counts
    assert not slurm_parser().parse_args(["status", "--run", "r"]).work_counts
