"""One rank dies or hangs in training: the others end soon, say which rank it was, and nothing is left running.

test_watchdog.py tries every way to die on small programs; here it is the main job.
"""

import re
import signal
import socket
import subprocess
import time
from pathlib import Path

from pipeline.checkpoint.layout import step_directories
from tests.helpers.ranks import WITHOUT_REPORT, Death, RankServer
from tests.helpers.running import ROOT, SMALL, set_options, torchrun, worker_environment

ENDLESS = (
    *SMALL,
    *set_options(
        train__steps=100000,
        train__checkpoint_every_steps=50,
        train__eval_every_steps=100000,
        batch__global_sequences=12,
        batch__micro_sequences=2,
    ),
)


def arguments(corpus: Path, run: Path, *options: str) -> list[str | Path]:
    return ["pretrain", "--recipe", "tiny", "--data", corpus, "--run-dir", run, *ENDLESS, *options]


def test_a_dead_rank_ends_the_others_with_its_name(rank_server: RankServer, corpus: Path, tmp_path: Path) -> None:
    for dead in (0, 2):
        run = tmp_path / f"run{dead}"
        ranks = rank_server.start(arguments(corpus, run), 3, die=Death(dead, "step", 5), skip=WITHOUT_REPORT)
        codes = ranks.wait(timeout_s=60)  # of the default of train.timeout_s, 300: a death is seen, not waited for
        assert codes == [-signal.SIGKILL if rank == dead else 1 for rank in range(3)], ranks.stderr
        told = ranks.stderr.splitlines()  # in rank order: each survivor has said one line, and nothing else
        assert [line.split(":")[0] for line in told] == [f"rank {rank}" for rank in range(3) if rank != dead], ranks.stderr
        named = f": lost rank {dead} (host {socket.gethostname()}, pid {ranks.pids[dead]})"
        assert all(named in line for line in told), ranks.stderr


def test_a_rank_that_hangs_ends_the_run_within_the_timeout(rank_server: RankServer, corpus: Path, tmp_path: Path) -> None:
    """Stopped, not dead: its sockets stay open and no collective fails."""
    ranks = rank_server.start(
        arguments(corpus, tmp_path / "run", *set_options(train__timeout_s=4)),
        2,
        die=Death(1, "step", 5, signal=signal.SIGSTOP),
        skip=WITHOUT_REPORT,
    )
    codes = ranks.wait_for_first(timeout_s=60)
    assert codes == [1, None], ranks.stderr
    assert re.match(rf"rank 0: lost rank 1 \(host .*, pid {ranks.pids[1]}\)", ranks.stderr), ranks.stderr
    ranks.kill()
    assert ranks.wait() == [1, -signal.SIGKILL]


def test_ranks_whose_launcher_is_killed_save_and_end(corpus: Path, tmp_path: Path) -> None:
    """torchrun starts its workers in sessions of their own: without a look at their parent they would train on for ever."""
    command = [*torchrun(2), "-m", "pipeline", *arguments(corpus, tmp_path / "run")]
    with (tmp_path / "out").open("wb") as out:
        launcher = subprocess.Popen(list(map(str, command)), cwd=ROOT, env=worker_environment(), stdout=out, stderr=out)
    deadline = time.monotonic() + 120
    while not step_directories(tmp_path / "run"):
        assert launcher.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers = [int(pid) for pid in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()]
    assert len(workers) == 2
    launcher.kill()
    launcher.wait()
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < deadline, (tmp_path / "out").read_text()
        time.sleep(0.05)
    assert "the same command goes on" in (tmp_path / "out").read_text()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
