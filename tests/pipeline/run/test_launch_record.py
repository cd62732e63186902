"""--fresh once a launch: by the launcher's process, which outlives its workers."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from pipeline.run.launch_record import ELASTIC, launcher_of, record_launchers, was_begun_by
from tests.helpers.ranks import WITHOUT_REPORT, Death, RankServer
from tests.helpers.running import ROOT, SMALL, set_options, worker_environment


def test_only_an_elastic_launcher_counts() -> None:
    assert launcher_of({}) is None  # the parent is a shell
    identity = launcher_of({ELASTIC: "none"})
    assert identity == launcher_of({ELASTIC: "another"})
    started = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[19]  # a pid comes again, not this
    assert str(identity).split() == [socket.gethostname(), str(os.getppid()), started]


def test_a_process_of_its_own_is_another_launcher() -> None:
    script = f"from pipeline.run.launch_record import *; print(launcher_of({{'{ELASTIC}': 'none'}}))"
    here = launcher_of({ELASTIC: "none"})
    child = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=worker_environment(), capture_output=True, text=True)
    assert child.stdout.strip() not in ("", str(here))


def test_a_shell_around_a_worker_is_not_its_launcher() -> None:
    """It is another one after each restart: torchrun --no-python wrapper.sh, which waits for Python."""
    script = "import os; from pipeline.run.launch_record import *; print(launcher_of(os.environ))"
    command = ["sh", "-c", '"$@"; exit $?', "sh", "sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", script]
    environment = {**worker_environment(), ELASTIC: "none"}
    child = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    assert child.stdout.split() == [socket.gethostname(), str(os.getpid()), started]


def test_a_run_knows_who_took_part(tmp_path: Path) -> None:
    assert not was_begun_by(tmp_path, ["a 1 5"])
    record_launchers(tmp_path, [None, None])
    assert not (tmp_path / ".launchers").exists()
    record_launchers(tmp_path, ["a 1 5", "b 2 6", "b 2 6"])
    assert was_begun_by(tmp_path, ["c 9 9", "b 2 6"])
    record_launchers(tmp_path, ["c 9 9", "b 2 6"])  # a node has left, another has come
    assert was_begun_by(tmp_path, ["c 9 9"])
    assert not was_begun_by(tmp_path, ["a 1 7", None])  # the pid came again
    assert json.loads((tmp_path / ".launchers").read_text()) == {"launchers": ["a 1 5", "b 2 6", "c 9 9"]}


def test_a_node_that_joins_does_not_begin_the_run_anew(rank_server: RankServer, corpus: Path, tmp_path: Path) -> None:
    """The server is the launcher of its ranks: it starts one, later two, and counts no restart, as torchrun does when a node
    joins. A launch of its own begins anew, and so does a user who types the command twice in a shell."""
    run = tmp_path / "run"
    rhythm = set_options(train__steps=12, train__checkpoint_every_steps=3, train__eval_every_steps=12)
    arguments = ["pretrain", "--recipe", "tiny", "--data", corpus, "--run", run, "--fresh", *SMALL, *rhythm]
    elastic = {ELASTIC: "same-for-ever", "TORCHELASTIC_RESTART_COUNT": "0"}
    died = rank_server.run(arguments, ranks=1, env=elastic, die=Death(0, "step", 8), skip=WITHOUT_REPORT)
    assert died.codes == [-signal.SIGKILL]
    joined = rank_server.run(arguments, ranks=2, env=elastic, skip=WITHOUT_REPORT)
    assert joined.codes == [0, 0], joined.stderr
    assert "going on from step" in joined.stdout
    assert not (tmp_path / "run.1").exists()
    record = json.loads((run / ".launchers").read_text())
    record["launchers"] = [launcher.rsplit(" ", 1)[0] + " 1" for launcher in record["launchers"]]  # of another start
    (run / ".launchers").write_text(json.dumps(record))
    again = rank_server.run(arguments, ranks=1, env=elastic, die=Death(0, "step", 2), skip=WITHOUT_REPORT)
    assert again.codes == [-signal.SIGKILL]
    assert (tmp_path / "run.1" / "summary.json").exists()
