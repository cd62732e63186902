"""A disk that is full, away or gone for a while costs no record: the file afterwards is that of an undisturbed run."""

import contextlib
import errno
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.run import metrics_file
from pipeline.run.metrics_file import METRICS, read_metrics
from pipeline.run.monitor import Monitor
from tests.helpers.failing_disk import FailingDisk

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's thread dies

Mount = Callable[[Path, str], None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """mount(directory, size) puts an empty file system there for this test."""
    mounted = set()

    def mount(directory: Path, size: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(directory)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small tmpfs needs root")
        mounted.add(directory)

    yield mount
    for directory in mounted:
        unmount(directory)


def unmount(directory: Path) -> None:
    """Without waiting for those who have files open there, as an administrator does with a server that hangs."""
    subprocess.run(["umount", "-l", directory], check=True)


def fill(disk: Path) -> Path:
    """Leaves not one free page; the file to delete when there is to be space again."""
    with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return disk / "filler"


def open_monitor(run: Path, **arguments: Any) -> Monitor:
    return Monitor(run, 10_000, 1, interactive=False, **arguments)


def hand_in(m: Monitor, steps: Iterable[int]) -> None:
    """A training record each, and an evaluation every 50 steps; the lines have many lengths."""
    for step in steps:
        m.train({"step": step, "loss": 1 / step, "lr": 0.5, "note": "x" * (step * 37 % 101)})
        if step % 50 == 0:
            m.evaluate({"step": step, "heldout_loss": 2 / step})


def undisturbed(directory: Path, steps: Iterable[int]) -> bytes:
    """What metrics.jsonl holds after these steps on a disk that works."""
    m = open_monitor(directory / "undisturbed")
    hand_in(m, steps)
    m.close()
    return (directory / "undisturbed" / METRICS).read_bytes()


def said(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """The lines on the console with all these words, since the last look."""
    return [line for line in capsys.readouterr().out.splitlines() if all(word in line for word in words)]


def curve(run: Path) -> list[int]:
    """The steps that TensorBoard has a training loss of, file by file: two of one second may be named in the wrong order."""
    steps: list[int] = []
    for path in (run / "tensorboard").iterdir():
        board = EventAccumulator(str(path), size_guidance={"scalars": 0})
        board.Reload()
        if "loss/train" in board.Tags()["scalars"]:
            steps += [event.step for event in board.Scalars("loss/train")]
    return sorted(steps)


def test_a_full_disk_costs_no_record(tmp_path: Path, mount: Mount, capsys: pytest.CaptureFixture[str]) -> None:
    disk, run = tmp_path / "disk", tmp_path / "disk" / "run"
    mount(disk, "256k")
    m = open_monitor(run)
    hand_in(m, range(1, 61))
    filler = fill(disk)
    hand_in(m, range(61, 141))
    held = (run / METRICS).read_bytes()
    assert not held.endswith(b"\n")  # the disk took a part of a line
    (alarm,) = said(capsys, f"ALARM: {run / METRICS} ")
    assert f"{run / METRICS} cannot be written (No space left on device): 1 record in memory" in alarm
    filler.unlink()
    hand_in(m, range(141, 201))
    clear = said(capsys, f"{run / METRICS} ")
    m.close()
    assert (run / METRICS).read_bytes() == undisturbed(tmp_path, range(1, 201))
    waited = 140 + 2 - held.count(b"\n")  # with the evaluations at 50 and 100
    assert clear == [f"{run / METRICS} can be written again: {waited} records caught up"]


def test_a_disk_that_comes_back_as_another_one(tmp_path: Path, mount: Mount, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    mount(run, "1m")
    m = open_monitor(run)
    hand_in(m, range(1, 11))
    shutil.copytree(run, tmp_path / "server")
    unmount(run)
    hand_in(m, range(11, 21))
    assert not list(run.iterdir())  # nothing is written where the next mount hides it
    assert len(said(capsys, f"ALARM: {run / METRICS} ", "No such file or directory")) == 1
    mount(run, "1m")
    shutil.copytree(tmp_path / "server", run, dirs_exist_ok=True)
    hand_in(m, range(21, 31))
    m.close()
    assert (run / METRICS).read_bytes() == undisturbed(tmp_path, range(1, 31))
    assert [line[-20:] for line in said(capsys, f"{run / METRICS} ")] == ["10 records caught up"]


def test_a_file_that_comes_back_shorter_is_an_alarm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    m = open_monitor(tmp_path)
    hand_in(m, range(1, 6))
    content = (tmp_path / METRICS).read_bytes()
    (tmp_path / METRICS).write_bytes(content[:-5])  # the server crashed before it had stored the last record
    hand_in(m, range(6, 9))
    m.close()
    assert [row["step"] for row in read_metrics(tmp_path / METRICS)[0]] == [1, 2, 3, 4, 6, 7, 8]
    (alarm,) = said(capsys, "ALARM")
    assert f"{METRICS}: {len(content) - 5} bytes, expected the {len(content)} written so far: records are lost" in alarm


def test_what_another_process_writes_is_not_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    m = open_monitor(tmp_path)
    hand_in(m, [1])
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"kind": "train", "step": 7}')
    hand_in(m, [2, 3])
    m.close()
    assert [row["step"] for row in read_metrics(tmp_path / METRICS)[0]] == [1, 2, 3, 7]
    assert len(said(capsys, "ALARM", "something else writes to it")) == 1


def test_what_still_waits_at_the_end_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, away = tmp_path / METRICS, tmp_path / "away"
    m = open_monitor(tmp_path)
    hand_in(m, [1])
    file.rename(away)
    hand_in(m, [2, 3, 4])
    for _ in range(2):
        with pytest.raises(OSError, match=rf"{file}: 3 records never written \(No such file or directory\)"):
            m.close()
    assert not file.exists()
    away.rename(file)
    m.close()
    assert file.read_bytes() == undisturbed(tmp_path, range(1, 5))
    assert len(said(capsys, METRICS, "3 records caught up")) == 1
    assert curve(tmp_path) == [1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(40))
def test_random_outages_leave_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    expected, disk = undisturbed(tmp_path, range(1, 100)).splitlines(keepends=True), FailingDisk(seed)
    monkeypatch.setattr(metrics_file, "os", disk)
    m = open_monitor(tmp_path / "run")
    for step in range(1, 100):
        disk.well = disk.random.random() < 0.3
        hand_in(m, [step])
        assert m.position() == len(b"".join(expected[: step + (step >= 50)]))  # as if nothing waited
    disk.well = True
    m.close()
    assert (tmp_path / "run" / METRICS).read_bytes() == b"".join(expected)
    told = ["alarm" if "ALARM" in line else "clear" for line in said(capsys, METRICS)]
    assert told == ["alarm", "clear"] * (len(told) // 2)
    assert len(told) > 4


def test_tensorboard_alone_fails(tmp_path: Path, mount: Mount, capsys: pytest.CaptureFixture[str]) -> None:
    board = tmp_path / "run" / "tensorboard"
    mount(board, "64k")
    m = open_monitor(tmp_path / "run")
    hand_in(m, range(1, 11))
    filler = fill(board)
    hand_in(m, range(11, 200))
    (alarm,) = said(capsys, "ALARM")
    told = re.fullmatch(
        rf"ALARM: {board} cannot be written \(\[Errno 28\] No space left on device\): TensorBoard's curves end at step (\d+), "
        "the run goes on without it; metrics.jsonl has every step, and "
        f"`python -m pipeline report --run {board.parent}` draws them all",
        alarm,
    )
    assert told
    filler.unlink()
    hand_in(m, range(200, 211))
    m.close()
    assert not said(capsys, "tensorboard")  # once is enough
    assert (tmp_path / "run" / METRICS).read_bytes() == undisturbed(tmp_path, range(1, 211))
    steps = curve(tmp_path / "run")
    assert steps == list(range(1, len(steps) + 1))  # without a gap up to their end
    assert 10 <= len(steps) <= int(told[1]) < 200


def board_dies_unasked(m: Monitor, step: int) -> None:
    """TensorBoard's thread dies of one number; only the next call would tell."""
    assert m._board is not None
    m._board.flush()
    shutil.rmtree(m._board.log_dir)
    m.train({"step": step, "loss": 0.5})


def test_an_outage_of_metrics_alone_leaves_no_gap_in_the_curves(tmp_path: Path) -> None:
    m = open_monitor(tmp_path)
    hand_in(m, [1, 2])
    (tmp_path / METRICS).rename(tmp_path / "away")
    hand_in(m, range(3, 6))
    (tmp_path / "away").rename(tmp_path / METRICS)
    hand_in(m, [6])
    m.close()
    assert curve(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_tensorboard_may_fail_at_the_close(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    m = open_monitor(tmp_path)
    board_dies_unasked(m, 1)
    m.close()
    m.close()
    assert len(said(capsys, "ALARM", "tensorboard", "No such file or directory")) == 1


def test_a_start_on_a_full_disk_is_refused(tmp_path: Path, mount: Mount) -> None:
    mount(tmp_path / "disk", "64k")
    fill(tmp_path / "disk")
    with pytest.raises(OSError, match="No space left on device"):
        open_monitor(tmp_path / "disk" / "run")


class FullConsole(io.StringIO):
    """A log on the disk that is full."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_console_on_a_full_disk_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", FullConsole())
        m = open_monitor(tmp_path / "run")
        hand_in(m, range(1, 51))
        m.close()
    assert (tmp_path / "run" / METRICS).read_bytes() == undisturbed(tmp_path, range(1, 51))
