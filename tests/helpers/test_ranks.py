"""The harness that starts ranks (ranks.py, rank_server.py): are they what torchrun starts, and do they die as told?"""

import os
import select
import signal
import threading
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.helpers import rank_server as program
from tests.helpers.faults import PLACES, arm
from tests.helpers.ranks import WITHOUT_REPORT, Death, Failure, RankServer
from tests.helpers.running import SMALL, refused, run_cli, set_options


def pretrain(corpus: Path, run: Path) -> list[str]:
    """20 steps, saved every 5: when step 10 is saved, step 5 is on disk, even if something saves beside the training."""
    every = set_options(train__checkpoint_every_steps=5)
    return ["pretrain", "--recipe", "tiny", "--data", str(corpus), "--run-dir", str(run), *SMALL, *every]


def shards(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "checkpoints" / "step-00000020").glob("*.safetensors")}


@pytest.fixture(scope="module")
def undisturbed(rank_server: RankServer, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks of the server."""
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    done = rank_server.run(pretrain(corpus, run), ranks=2)
    assert done.codes == [0, 0], done.stderr
    assert f"report       {run / 'report.html'}" in done.output("stdout", 0)
    assert done.output("stdout", 1) == done.stderr == ""
    late = done.output("imports", 0).split()
    assert len(late) < 40, f"slow: every rank imports {late}; add them to rank_server.MODULES"
    return run


@pytest.mark.long
def test_they_train_bit_for_bit_what_the_ranks_of_torchrun_train(undisturbed: Path, corpus: Path, tmp_path: Path) -> None:
    done = run_cli("pipeline", *pretrain(corpus, tmp_path / "run"), ranks=2)
    assert done.returncode == 0, done.stderr
    assert {"rank-00000-of-00002.safetensors", "rank-00001-of-00002.safetensors"} <= shards(undisturbed).keys()
    assert shards(tmp_path / "run") == shards(undisturbed)


def test_a_death_takes_its_rank_before_its_call(rank_server: RankServer, corpus: Path, tmp_path: Path) -> None:
    """Rank 1 syncs nothing before its part of the first checkpoint, which is never whole then."""
    ranks = rank_server.run(pretrain(corpus, tmp_path / "run"), ranks=2, die=Death(rank=1, at="fsync", count=1))
    assert ranks.codes == [1, -signal.SIGKILL], "its peer ends by itself"
    assert (tmp_path / "run" / "checkpoints").is_dir()
    assert not list((tmp_path / "run" / "checkpoints").glob("step-*"))


def test_all_die_together_and_their_successors_end_where_they_would_have(
    rank_server: RankServer, undisturbed: Path, corpus: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    killed = rank_server.run(pretrain(corpus, run), ranks=2, die=Death(rank="all", at="step", count=13))
    assert killed.codes == [-signal.SIGKILL] * 2
    assert not killed.stderr, "nobody has seen a peer go"
    resumed = rank_server.run(pretrain(corpus, run), ranks=2, skip=WITHOUT_REPORT)
    assert resumed.codes == [0, 0], resumed.stderr
    assert "going on from step" in resumed.stdout
    assert shards(run) == shards(undisturbed)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("place", [*PLACES, "pipeline.run.monitor:Monitor.train,pipeline.run.monitor:Monitor.evaluate"])
def test_every_place_is_reached(rank_server: RankServer, corpus: Path, tmp_path: Path, place: str) -> None:
    died = rank_server.run(pretrain(corpus, tmp_path / "run"), die=Death(rank=0, at=place, count=1))
    assert died.codes == [-signal.SIGKILL], died.stderr


def test_another_signal(rank_server: RankServer, corpus: Path, tmp_path: Path) -> None:
    hung_up = Death(rank=0, at="batch", count=2, signal=signal.SIGHUP)
    assert rank_server.run(pretrain(corpus, tmp_path / "run"), die=hung_up).codes == [-signal.SIGHUP]


def test_a_death_that_is_not_reached_takes_nobody(rank_server: RankServer) -> None:
    assert rank_server.run(["--help"], die=Death(rank=0, at="write", count=1)).codes == [0]


def test_a_rank_whose_disk_is_full(rank_server: RankServer, corpus: Path, tmp_path: Path) -> None:
    ranks = rank_server.run(pretrain(corpus, tmp_path / "run"), ranks=2, fail=Failure(rank=1, at="fsync", errno="ENOSPC"))
    assert ranks.codes == [2, 2]
    refused(ranks.completed(), "rank 1: ", "No space left")


def test_failures_begin_and_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, getattr(os, name))  # arm() replaces them; put back at the end
    arm(None, asdict(Failure(rank="all", at="rename", count=2, errno="EIO", times=2)), rank=5)
    first, second = tmp_path / "first", tmp_path / "second"
    first.touch()
    os.rename(first, second)
    with pytest.raises(OSError, match=f"Input/output error: '{second}'"):
        os.replace(second, first)
    with pytest.raises(OSError, match="Input/output error"):
        second.rename(first)
    second.rename(first)
    assert first.exists()


def test_what_a_user_types_ends_with_the_same_code_and_words(rank_server: RankServer) -> None:
    assert rank_server.run(["pretrain", "--help"]).stdout == run_cli("pipeline", "pretrain", "--help").stdout
    refused(rank_server.run(["pretrian"]).completed(), "pretrian")
    two = rank_server.run(["pretrain", "--recipe", "/nowhere.toml", "--data", "corpus", "--run", "run"], ranks=2)
    assert two.codes == [2, 2]
    refused(two.completed(), "/nowhere")  # one line, rank 0's


def test_a_kill_takes_one_rank_and_a_wait_has_an_end(rank_server: RankServer, corpus: Path, tmp_path: Path) -> None:
    """Two of four never come: the others would wait for them."""
    ranks = rank_server.start(pretrain(corpus, tmp_path / "run"), ranks=2, env={"WORLD_SIZE": "4"})
    ranks.kill(rank=1)
    assert ranks.wait_for_first() == [None, -signal.SIGKILL]
    with pytest.raises(TimeoutError, match=r"\[0\]"):
        ranks.wait(timeout_s=0)
    assert ranks.codes == [-signal.SIGKILL] * 2, ranks.stderr
    ranks.kill()  # of what is gone: nothing


def test_an_impossible_request_is_refused_and_the_next_is_served(rank_server: RankServer) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        rank_server.start(["report"], die=Death(rank=0, at="nowhere", count=1))
    with pytest.raises(ValueError, match="EVERYTHING"):
        rank_server.start(["report"], fail=Failure(rank=0, at="fsync", errno="EVERYTHING"))
    assert rank_server.run(["--help"]).codes == [0]


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_no_rank_outlives_the_server(corpus: Path, tmp_path: Path, how: str) -> None:
    with RankServer(tmp_path, cold=True) as server:
        ranks = server.start(pretrain(corpus, tmp_path / "run"), ranks=2, env={"WORLD_SIZE": "4"})
        ends = [os.pidfd_open(pid) for pid in ranks.pids]  # readable when the process has ended, whoever its parent is
        if how == "killed":
            server.process.kill()
        else:
            server.close()
        for end in ends:
            assert select.select([end], [], [], 60)[0], "it lives on"
            os.close(end)
        if how == "killed":
            with pytest.raises(RuntimeError, match="ended with -9"):
                ranks.wait()


def test_a_process_with_threads_is_not_forked() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    with pytest.raises(RuntimeError, match="threads"):
        program.check_single_thread()
    over.set()
    thread.join()
