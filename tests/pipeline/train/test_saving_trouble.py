"""A disk that is full, a file system that goes away and comes back: training goes on, older checkpoints stay whole."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.checkpoint.layout import step_directories
from pipeline.checkpoint.reader import Checkpoint
from pipeline.run.metrics_file import read_metrics
from tests.helpers.ranks import WITHOUT_REPORT, Failure, Ranks, RankServer
from tests.helpers.running import SMALL, set_options

EVERY_STEP = (*SMALL, *set_options(train__checkpoint_every_steps=2, train__timeout_s=60))
ENDLESS = set_options(train__steps=100000, train__eval_every_steps=100000, train__keep_last_checkpoints=3)


def arguments(corpus: Path, run: Path, *options: str) -> list[str | Path]:
    return ["pretrain", "--recipe", "tiny-untied", "--data", corpus, "--run", run, *EVERY_STEP, *options]


def all_whole(run: Path) -> list[int]:
    """The steps of the checkpoints, every byte of each verified."""
    steps = []
    for directory in step_directories(run):
        found = Checkpoint(directory)
        found.verify()
        steps.append(found.step)
    return sorted(steps)


def wait_for(condition: Callable[[], object], ranks: Ranks, what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within a minute\n{ranks.stdout}{ranks.stderr}"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(rank_server: RankServer, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run on a disk that works."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    done = rank_server.run(arguments(corpus, run), 2, skip=WITHOUT_REPORT)
    assert done.codes == [0, 0], done.stderr
    return run


@pytest.mark.parametrize(
    ("rank", "place", "first"),  # behind the calls of the trial at the start
    [(0, "fsync", 15), (1, "fsync", 6), (0, "rename", 15), (1, "pipeline.checkpoint.tensor_file:save_file", 3)],
)
def test_saves_that_fail_are_alarms_and_the_run_ends_as_if_nothing_had_been(
    rank_server: RankServer, corpus: Path, undisturbed: Path, tmp_path: Path, rank: int, place: str, first: int
) -> None:
    """Some calls in the middle of the run fail with ENOSPC, on one rank of two."""
    run = tmp_path / "run"
    fail = Failure(rank, place, count=first, times=4 if rank == 0 else 2)
    ranks = rank_server.run(arguments(corpus, run), 2, fail=fail, skip=WITHOUT_REPORT)
    assert ranks.codes == [0, 0], ranks.stdout + ranks.stderr
    alarms = [line for line in ranks.stdout.splitlines() if "ALARM: no checkpoint of step" in line]
    assert alarms
    assert all("No space left on device" in line and (rank == 0 or "rank 1" in line) for line in alarms)
    failed = {int(line.split("step ")[1].split(":")[0]) for line in alarms}
    assert set(all_whole(run)) == set(range(2, 21, 2)) - failed
    assert not list((run / "checkpoints").glob(".*-step-*"))
    ours, theirs = (read_metrics(path / "metrics.jsonl") for path in (run, undisturbed))
    assert [row["loss"] for row in ours[0]] == [row["loss"] for row in theirs[0]]
    for shard in step_directories(undisturbed)[0].glob("*.safetensors"):
        assert (step_directories(run)[0] / shard.name).read_bytes() == shard.read_bytes()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 900 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "none", disk], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_ends_the_run_only_at_its_end_and_the_older_checkpoints_are_whole(
    rank_server: RankServer, corpus: Path, disk: Path
) -> None:
    """Room for one checkpoint: those after it are alarms, the last one, without which there is no result, an error."""
    ranks = rank_server.run(arguments(corpus, disk / "run"), 2, skip=WITHOUT_REPORT)
    assert ranks.codes == [2, 2], ranks.stdout + ranks.stderr
    assert "ALARM: no checkpoint of step 6" in ranks.stdout
    (line,) = [line for line in ranks.stderr.splitlines() if line.startswith("python -m pipeline: error:")]
    assert "checkpoint at step 20" in line
    assert "No space left" in line
    steps = all_whole(disk / "run")
    assert steps
    assert max(steps) < 20
    assert not (disk / "run/summary.json").exists()


def test_a_file_system_that_goes_away_and_comes_back(rank_server: RankServer, corpus: Path, disk: Path, tmp_path: Path) -> None:
    """The run's directory is a second mount of the disk, which is taken away and given back."""
    place = tmp_path / "place"
    place.mkdir()
    subprocess.run(["mount", "--bind", disk, place], check=True)
    subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
    run = place / "run"
    ranks = rank_server.start(arguments(corpus, run, *ENDLESS), 2, skip=WITHOUT_REPORT)
    try:
        wait_for(lambda: step_directories(run), ranks, "the first checkpoint")
        subprocess.run(["umount", "-l", place], check=True)
        wait_for(lambda: "ALARM: no checkpoint of step" in ranks.stdout, ranks, "the alarm")
        assert not list(place.iterdir()), "nothing may be written where the disk was"
        before = all_whole(disk / "run")
        subprocess.run(["mount", "--bind", disk, place], check=True)
        wait_for(lambda: step_directories(run)[0].name > f"step-{before[-1]:08d}", ranks, "a checkpoint on the disk again")
        ranks.kill(15, rank=0)
        assert ranks.wait() == [75, 75], ranks.stdout + ranks.stderr
        assert all_whole(run)[-1] > before[-1]
    finally:
        ranks.kill()
        ranks.wait()
        subprocess.run(["umount", "-l", place], check=False, capture_output=True)
