"""Is a node fit: each check finds what is broken, and the verdict blames the right node."""

import io
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.distributed.launch import port_of_job
from slurm import node_check
from slurm.node_check import (
    answer_others,
    call_first,
    disk,
    gpus,
    main,
    memory,
    said_of_nodes,
    seen_by_nobody,
    shared,
    unfit_nodes,
)

FIRST = "UNFIT: network: the first node, n1:15001, could not be reached in 20 s (timed out)"


@pytest.mark.parametrize(
    ("said", "unfit"),
    [
        ({"n1": "fit", "n2": "fit", "n3": "fit"}, []),
        ({"n1": "fit", "n2": "UNFIT: disk: full", "n3": "fit"}, ["n2"]),
        ({"n1": "fit", "n3": "fit"}, ["n2"]),  # it said nothing
        ({"n1": "fit", "n2": FIRST, "n3": "fit"}, ["n2"]),
        ({"n1": "fit", "n2": FIRST, "n3": FIRST}, ["n1"]),  # all others complain of the first
        ({}, ["n1", "n2", "n3"]),
    ],
)
def test_the_verdict(said: dict[str, str], unfit: list[str]) -> None:
    lines = [f"node {name}: {text}" for name, text in said.items()]
    assert unfit_nodes(said_of_nodes(["srun: error: noise", *lines], ["n1", "n2", "n3"])) == unfit


def test_of_two_nodes_the_one_that_calls_is_to_blame() -> None:
    assert unfit_nodes(said_of_nodes([f"node n2: {FIRST}", "node n1: fit"], ["n1", "n2"])) == ["n2"]


def test_a_directory_that_is_not_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_check, "SEEN_S", 0.2)
    token = tmp_path / "token"
    expected = f"directory: {tmp_path} is not the directory that n1 sees: --run must be on a file system that all nodes share"
    assert shared(token, "n1") == expected
    threading.Timer(0.1, token.touch).start()  # a network's file system may be late
    assert shared(token, "n1") is None


BLIND = (
    "UNFIT: disk: full; directory: /a b is not the directory that n1 sees: --run must be on a file system that all nodes share"
)


@pytest.mark.parametrize(
    ("said", "nobody"),
    [
        (["fit", BLIND, BLIND], True),
        (["fit", BLIND], True),
        (["UNFIT: memory: 1 GB", BLIND, "said nothing"], True),
        (["fit", BLIND, "fit"], False),
        (["fit", BLIND, "UNFIT: clock: late"], False),  # it sees it
        (["fit", "said nothing", "said nothing"], False),
        (["fit"], False),
    ],
)
def test_nobody_sees_the_directory_of_the_first(said: list[str], nobody: bool) -> None:
    found = seen_by_nobody({f"n{number}": text for number, text in enumerate(said, start=1)})
    told = "no other node sees what n1 has just written to /a b: --run must be on a file system that all nodes share"
    assert found == (told if nobody else "")


def test_the_three_lines_of_the_verdict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Which job.sh reads."""
    monkeypatch.setattr(node_check.sys, "stdin", io.StringIO(f"node n1: fit\nnode n2: {BLIND}\nnode n4: UNFIT: disk: full\n"))
    assert main(["--verdict", "n1 n2 n3 n4"]) == 0
    unfit, found, unshared = capsys.readouterr().out.split("\n")[:-1]
    assert (unfit, unshared) == ("n2,n3,n4", "")
    assert found == f"n2: {BLIND.removeprefix('UNFIT: ')}; n3: said nothing; n4: disk: full"


def test_disk(tmp_path: Path) -> None:
    assert disk(tmp_path, 1000) is None
    assert list(tmp_path.iterdir()) == []
    assert "are needed" in str(disk(tmp_path, 10**18))
    assert "No such file" in str(disk(tmp_path / "gone", 0))


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "full"
    place.mkdir()
    if os.getuid() != 0 or os.system(f"mount -t tmpfs -o size=512k tmpfs {place}"):
        pytest.skip("a full disk needs a mount: not root, or not allowed")
    yield place
    os.system(f"umount {place}")


def test_a_full_disk(full_disk: Path) -> None:
    assert "No space left" in str(disk(full_disk, 0))
    assert list(full_disk.iterdir()) == []


def test_memory_and_gpus() -> None:
    assert memory(1000) is None
    assert "are needed" in str(memory(10**18))
    assert gpus(0) is None
    assert "1000 are needed" in str(gpus(1000))


PORT = port_of_job(os.getpid())


def test_the_others_reach_the_first_node() -> None:
    found: list[str | None] = []
    callers = [threading.Thread(target=lambda: found.append(call_first("127.0.0.1", PORT, 10))) for _ in range(2)]
    for caller in callers:
        caller.start()
    assert answer_others(PORT, 2, 10) is None
    for caller in callers:
        caller.join()
    assert found == [None, None]


def test_a_clock_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    caller = threading.Thread(target=answer_others, args=(PORT, 1, 10))
    monkeypatch.setattr(node_check.time, "time", lambda: real() + (60 if threading.current_thread() is caller else 0))
    caller.start()
    assert "is +60.0 s away" in str(call_first("127.0.0.1", PORT, 10))
    caller.join()


def test_nobody_answers_and_the_port_is_taken() -> None:
    assert "could not be reached" in str(call_first("127.0.0.1", PORT, 0.3))
    assert answer_others(PORT, 1, 0.1) is None  # the others say it
    with node_check.socket.create_server(("", PORT)):
        assert "in use" in str(answer_others(PORT, 1, 1))


def test_the_line_of_a_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("PIPELINE_HOSTS", "n1"), ("SLURMD_NODENAME", "n1"), ("SLURM_JOB_ID", "3")):
        monkeypatch.setenv(name, value)
    (tmp_path / "manifest.json").touch()
    folders = ["--folder", str(tmp_path), "--data", str(tmp_path)]
    assert main(folders) == 0
    assert (
        main(
            [
                "--folder",
                str(tmp_path),
                "--data",
                str(tmp_path / "none"),
                "--disk-bytes",
                str(10**18),
                "--memory-bytes",
                str(10**18),
            ]
        )
        == 0
    )
    fit, unfit = capsys.readouterr().out.splitlines()
    assert fit == "node n1: fit"
    assert unfit.startswith("node n1: UNFIT: disk: ")
    assert "; memory: " in unfit
    assert "; corpus: " in unfit
    monkeypatch.setattr(node_check, "SEEN_S", 0.1)
    assert main([*folders, "--token", str(tmp_path / "manifest.json")]) == 0
    assert main([*folders, "--token", str(tmp_path / "token")]) == 0
    fit, unfit = capsys.readouterr().out.splitlines()
    assert fit == "node n1: fit"
    assert unfit.startswith(f"node n1: UNFIT: directory: {tmp_path} is not")
    monkeypatch.setenv("PIPELINE_HOSTS", "first.invalid n1")
    assert main([*folders, "--wait-s", "0.2"]) == 0
    assert "UNFIT: network: the first node, first.invalid:15003, could not be reached" in capsys.readouterr().out
