"""What two readings of the ranks' heartbeats say, word by word."""

import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from operator import methodcaller

import pytest
from torch.distributed import DistBackendError, TCPStore

from pipeline.distributed.heartbeat import (
    VERDICT,
    Heartbeat,
    HeartbeatStore,
    describe_ranks,
    ended_line,
    is_collective_error,
    lost_line,
    silent_ranks,
    stuck_line,
)
from pipeline.distributed.launch import World
from tests.helpers.connections import cut_connections

WAITING = Heartbeat(9, 40, "step 8", 300.4, False, "n1", "n1 a", 70)
HEARTBEATS = [replace(WAITING, pid=70 + rank, host=f"n{1 + rank // 2}") for rank in range(7)]
ALL_MOVE = [replace(beat, published=beat.published + 1) for beat in HEARTBEATS]


def but(heartbeats: list[Heartbeat], ranks: list[int], **changed: object) -> list[Heartbeat]:
    return [replace(beat, **changed) if rank in ranks else beat for rank, beat in enumerate(heartbeats)]  # type: ignore[arg-type]


@pytest.fixture
def store() -> TCPStore:
    return TCPStore("127.0.0.1", 0, None, is_master=True, timeout=timedelta(seconds=30), wait_for_workers=False)


def test_a_line_names_a_few_ranks_and_counts_the_rest() -> None:
    assert describe_ranks([3], HEARTBEATS) == "rank 3 (host n2, pid 73)"
    assert describe_ranks([0, 3], HEARTBEATS) == "ranks 0 (host n1, pid 70), 3 (host n2, pid 73)"
    four = "ranks 0 (host n1, pid 70), 1 (host n1, pid 71), 2 (host n2, pid 72), 3 (host n2, pid 73)"
    assert describe_ranks(range(4), HEARTBEATS) == four
    assert describe_ranks(range(7), HEARTBEATS) == f"{four} and 3 more"


def test_lost_is_who_publishes_nothing_and_has_not_left() -> None:
    assert silent_ranks(HEARTBEATS, ALL_MOVE) == []
    assert silent_ranks(HEARTBEATS, but(ALL_MOVE, [2, 5], published=9)) == [2, 5]
    assert silent_ranks(HEARTBEATS, but(ALL_MOVE, [2, 5], published=9, ended=True)) == []
    line = "lost ranks 2 (host n2, pid 72), 5 (host n3, pid 75), last seen at step 7: why"
    assert lost_line([2, 5], but(ALL_MOVE, [2], where="step 7"), "why") == line


def test_who_left_alone_is_told_and_who_left_with_all_is_not() -> None:
    assert ended_line(HEARTBEATS) is None
    assert ended_line(but(HEARTBEATS, list(range(7)), ended=True)) is None
    assert ended_line(but(HEARTBEATS, [4], ended=True)) == "rank 4 (host n3, pid 74) ended at step 8, and the others wait"


def test_stuck_is_who_is_behind() -> None:
    slow = but(HEARTBEATS, [1], progress=39, where="step 8's data", quiet_s=301.0)
    assert stuck_line(slow) == "stuck: rank 1 (host n1, pid 71), not beyond step 8's data for 301 s"
    assert stuck_line(but(slow, [0, 3], ended=True)) == stuck_line(slow)  # they have done all their work
    nobody = "stuck: all 7 ranks wait at step 8 for 300 s: the network or a device does not answer"
    assert stuck_line(HEARTBEATS) == nobody
    assert stuck_line(but(HEARTBEATS, [4], ended=True)) == "rank 4 (host n3, pid 74) ended at step 8, and the others wait"
    assert stuck_line(but(HEARTBEATS, [4], progress=30, ended=True)) == stuck_line(but(HEARTBEATS, [4], ended=True))
    assert stuck_line(HEARTBEATS[:1]) == "stuck: rank 0 (host n1, pid 70), not beyond step 8 for 300 s"


def test_only_a_collectives_error_is_a_question_about_others() -> None:
    gloo = RuntimeError("[/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1")
    wrapped = RuntimeError("the step failed")
    wrapped.__cause__ = gloo
    assert all(map(is_collective_error, (gloo, DistBackendError("NCCL error"), wrapped)))
    assert not any(map(is_collective_error, (RuntimeError("shapes cannot be multiplied"), ValueError("x"), None)))


def test_all_ranks_find_a_verdict_of_their_own_attempt(store: TCPStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun's store is the same for all attempts."""

    def connected(rank: int) -> HeartbeatStore:
        return HeartbeatStore(World(rank, 2, 0, "127.0.0.1", store.port), 30, 0.05, lambda: replace(WAITING, pid=rank))

    for attempt in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", attempt)
        with ThreadPoolExecutor(2) as pool:
            ranks = list(pool.map(connected, range(2)))
        assert [[beat.pid for beat in rank.first] for rank in ranks] == [[0, 1], [0, 1]]
        for rank in ranks:
            rank.ask(rank.read, 30)
        assert [rank.verdict for rank in ranks] == ["", ""]
        ranks[1].ask(methodcaller("set", VERDICT, f"lost in attempt {attempt}"), 30)
        for rank in ranks:
            rank.ask(rank.read, 30)
            assert rank.verdict == f"lost in attempt {attempt}"
            rank.close()


def test_a_store_that_no_longer_answers_is_gone_without_a_word(store: TCPStore, capfd: pytest.CaptureFixture[str]) -> None:
    """A process that is ending takes connections still and answers none."""
    rank = HeartbeatStore(World(0, 1, 0, "127.0.0.1", store.port), 30, 0.05, lambda: WAITING)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        rank.world = World(0, 1, 0, "127.0.0.1", listener.getsockname()[1])
        cut_connections(store.port)
        with pytest.raises(ConnectionError):
            rank.ask(rank.read, 30)
    rank.close()
    assert "timed out" not in capfd.readouterr().err  # below are warnings, which the command line turns off


def test_a_connection_that_broke_is_made_again(store: TCPStore) -> None:
    rank = HeartbeatStore(World(0, 1, 0, "127.0.0.1", store.port), 30, 0.05, lambda: WAITING)
    cut_connections(store.port)
    assert rank.ask(rank.read, 30) == [WAITING]
    assert not rank.lost
    rank.close()
