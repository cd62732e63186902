"""SIGKILL at any moment: what is built in the end is what an undisturbed build makes, byte for byte."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.running import ROOT, long, run_cli
from tests.helpers.small_corpora import VOCAB_SIZE, build_small, content

SEED = 20261121
SLICE_MB = 0.01
COMMAND = (sys.executable, "-m", "preprocessing", "build", "--vocab-size", str(VOCAB_SIZE), "--heldout-fraction", "0.1")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, articles: Path) -> dict[str, bytes]:
    return content(build_small(tmp_path_factory.mktemp("undisturbed") / "out", str(articles), slice_mb=SLICE_MB).directory)


def start(articles: Path, out: Path) -> "subprocess.Popen[bytes]":
    command = [*COMMAND, "--slice-mb", str(SLICE_MB), "--workers", "2", "--source", str(articles), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, start_new_session=True)


@pytest.mark.parametrize("wanted", [15, *long(50)])
def test_random_kills(wanted: int, undisturbed: dict[str, bytes], articles: Path, tmp_path: Path) -> None:
    """The whole session is killed, or the parent alone: its workers must end by themselves and harm nothing."""
    generator = random.Random(SEED)
    kills = builds = 0
    while kills < wanted:
        out = tmp_path / f"out{builds}"
        while True:
            process = start(articles, out)
            try:
                longest_s = 2.5 if generator.random() < 0.8 else 8.0  # now and then long enough to get on with it
                moment_s = generator.uniform(0.2, longest_s) if kills < wanted else None
                process.communicate(timeout=moment_s)
            except subprocess.TimeoutExpired:
                if generator.random() < 0.7:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()
                process.communicate(timeout=60)  # its end is the end of the last worker, too: they share the pipe
                kills += 1
                assert not out.exists() or content(out) == undisturbed  # whole or absent
                continue
            assert process.returncode == 0
            break
        assert content(out) == undisturbed
        builds += 1
    print(f"{kills} kills, {builds} builds")


@pytest.mark.long
def test_a_kill_at_every_durable_step_of_finalize(undisturbed: dict[str, bytes], articles: Path, tmp_path: Path) -> None:
    """The process dies at its 1st, 2nd, 3rd ... fsync, link or rename, until it comes through."""
    out, deaths = tmp_path / "out", 0
    plan = ["--vocab-size", VOCAB_SIZE, "--heldout-fraction", "0.1", "--slice-mb", SLICE_MB, "--source", articles]
    assert run_cli("preprocessing", "tokenizer", *map(str, plan), "--out", out).returncode == 0
    assert run_cli("preprocessing", "shard", "--out", out).returncode == 0
    while True:
        worker = [sys.executable, str(Path(__file__).parent / "dying_worker.py"), str(deaths + 1), str(out)]
        code = subprocess.run(worker, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False).returncode
        assert code in (0, -signal.SIGKILL)
        if code == 0:
            break
        deaths += 1
        assert not out.exists() or content(out) == undisturbed
    assert deaths > 20
    assert content(out) == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
