"""Ranks that come together, and the one line of those that wait for others that do not come."""

import socket
import threading
import time
from collections.abc import Callable

import pytest

from pipeline.distributed.launch import World
from pipeline.distributed.rendezvous import AskedToStop, come_together
from preprocessing.base.command_line import RankError


@pytest.fixture
def port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        number: int = listener.getsockname()[1]
    return number


def test_a_wish_to_stop_ends_the_waiting(port: int) -> None:
    for rank in (0, 1):
        with pytest.raises(AskedToStop):
            come_together(World(rank, 2, 0, "127.0.0.1", port), 20, asked_to_stop=lambda: True)


def in_threads(worlds: list[World], within_s: float, say: Callable[[str], None], pause_s: float = 0.0) -> list[object]:
    """What each rank got: a store, or its error. They start in their order, `pause_s` apart."""
    results: list[object] = [None] * len(worlds)

    def run(at: int) -> None:
        try:
            results[at] = come_together(worlds[at], within_s, say, first_notice_s=0.5)
        except ValueError as error:
            results[at] = error

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(worlds))]
    for thread in threads:
        thread.start()
        time.sleep(pause_s)
    for thread in threads:
        thread.join(30)
    return results


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_all_come_in_any_order(port: int, order: tuple[int, ...]) -> None:
    said: list[str] = []
    worlds = [World(rank, 3, rank, "127.0.0.1", port) for rank in order]
    results = in_threads(worlds, 20, said.append)
    assert not [result for result in results if isinstance(result, ValueError)], results
    assert come_together(World(0, 1, 0, "nowhere", 0), 1) is None


def test_rank_0_names_who_is_missing_and_where(port: int) -> None:
    said: list[str] = []
    results = in_threads([World(rank, 9, 1, "127.0.0.1", port) for rank in (0, 3)], 2, said.append)
    assert len(said) == 1
    assert said[0].startswith(f"rank 0 waits at 127.0.0.1:{port} for 1, 2, 4, 5, … of 9 ranks, for ")
    assert isinstance(results[0], RankError)
    assert str(results[0]) == f"of 9 ranks 1, 2, 4, 5, … did not come to 127.0.0.1:{port} within 2 s"
    assert isinstance(results[1], ValueError)
    assert not isinstance(results[1], RankError)


@pytest.mark.parametrize("local_rank", [0, 1])
def test_the_first_rank_of_a_node_says_that_rank_0_is_not_there(port: int, local_rank: int) -> None:
    said: list[str] = []
    [result] = in_threads([World(5, 9, local_rank, "127.0.0.1", port)], 1, said.append)
    assert isinstance(result, ValueError)
    assert isinstance(result, RankError) == (local_rank == 0)
    assert f"rank 5 of 9: no rank 0 at 127.0.0.1:{port} within 1 s (Connection refused)" in str(result)
    waits = f"rank 5 of 9 waits for rank 0 at 127.0.0.1:{port} (Connection refused), for "
    assert [line.startswith(waits) for line in said] == [True] * (local_rank == 0)


def test_a_late_rank_0_is_waited_for(port: int) -> None:
    said: list[str] = []
    results = in_threads([World(rank, 2, 0, "127.0.0.1", port) for rank in (1, 0)], 20, said.append, pause_s=1.5)
    assert not [result for result in results if isinstance(result, ValueError)], results
    assert len(said) == 1


def test_a_port_that_is_taken_or_none(port: int) -> None:
    with socket.socket(socket.AF_INET6) as other:
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        other.bind(("::", port))
        other.listen()
        with pytest.raises(RankError, match=rf"^rank 0 cannot listen at 127.0.0.1:{port}: the port is in use .*MASTER_PORT"):
            come_together(World(0, 2, 0, "127.0.0.1", port), 5)
        with pytest.raises(RankError, match=rf"^rank 1 of 2: no rendezvous at 127.0.0.1:{port}: "):
            come_together(World(1, 2, 0, "127.0.0.1", port), 1)
    with pytest.raises(ValueError, match="MASTER_PORT = 70000: expected a port"):
        come_together(World(0, 2, 0, "127.0.0.1", 70000), 5)
    with pytest.raises(RankError, match=r"no rank 0 at no-such-host\.invalid:1 within 1 s"):
        come_together(World(1, 2, 0, "no-such-host.invalid", 1), 1)
