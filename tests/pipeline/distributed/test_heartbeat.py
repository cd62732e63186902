"""What two looks at the ranks' signs of life say, word by word."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from torch.distributed import DistBackendError, TCPStore

from pipeline.distributed.heartbeat import Keeper, Sign, gone, is_of_collective, named, tell_ended, tell_gone, tell_stuck
from pipeline.distributed.launch import World

WAITING = Sign(9, 40, "step 8", 300.4, False, "n1", "n1 a", 70)
SIGNS = [replace(WAITING, pid=70 + rank, host=f"n{1 + rank // 2}") for rank in range(7)]
ALL_MOVE = [replace(sign, life=sign.life + 1) for sign in SIGNS]


def but(signs: list[Sign], ranks: list[int], **changed: object) -> list[Sign]:
    return [replace(sign, **changed) if rank in ranks else sign for rank, sign in enumerate(signs)]  # type: ignore[arg-type]


def test_a_line_names_a_few_ranks_and_counts_the_rest() -> None:
    assert named([3], SIGNS) == "rank 3 (host n2, pid 73)"
    assert named([0, 3], SIGNS) == "ranks 0 (host n1, pid 70), 3 (host n2, pid 73)"
    four = "ranks 0 (host n1, pid 70), 1 (host n1, pid 71), 2 (host n2, pid 72), 3 (host n2, pid 73)"
    assert named(range(4), SIGNS) == four
    assert named(range(7), SIGNS) == f"{four} and 3 more"


def test_gone_is_who_shows_no_sign_of_life_and_has_not_left() -> None:
    assert gone(SIGNS, ALL_MOVE) == []
    assert gone(SIGNS, but(ALL_MOVE, [2, 5], life=9)) == [2, 5]
    assert gone(SIGNS, but(ALL_MOVE, [2, 5], life=9, ended=True)) == []
    line = "lost ranks 2 (host n2, pid 72), 5 (host n3, pid 75), last seen at step 7: why"
    assert tell_gone([2, 5], but(ALL_MOVE, [2], where="step 7"), "why") == line


def test_who_left_alone_is_told_and_who_left_with_all_is_not() -> None:
    assert tell_ended(SIGNS) is None
    assert tell_ended(but(SIGNS, list(range(7)), ended=True)) is None
    assert tell_ended(but(SIGNS, [4], ended=True)) == "rank 4 (host n3, pid 74) ended at step 8, and the others wait"


def test_stuck_is_who_is_behind() -> None:
    slow = but(SIGNS, [1], progress=39, where="step 8's data", quiet_s=301.0)
    assert tell_stuck(slow) == "stuck: rank 1 (host n1, pid 71), not beyond step 8's data for 301 s"
    assert tell_stuck(but(slow, [0, 3], ended=True)) == tell_stuck(slow)  # they have done all their work
    nobody = "stuck: all 7 ranks wait at step 8 for 300 s: the network or a device does not answer"
    assert tell_stuck(SIGNS) == nobody
    assert tell_stuck(but(SIGNS, [4], ended=True)) == "rank 4 (host n3, pid 74) ended at step 8, and the others wait"
    assert tell_stuck(but(SIGNS, [4], progress=30, ended=True)) == tell_stuck(but(SIGNS, [4], ended=True))
    assert tell_stuck(SIGNS[:1]) == "stuck: rank 0 (host n1, pid 70), not beyond step 8 for 300 s"


def test_only_a_collectives_error_is_a_question_about_others() -> None:
    gloo = RuntimeError("[/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1")
    wrapped = RuntimeError("the step failed")
    wrapped.__cause__ = gloo
    assert all(map(is_of_collective, (gloo, DistBackendError("NCCL error"), wrapped)))
    assert not any(map(is_of_collective, (RuntimeError("shapes cannot be multiplied"), ValueError("x"), None)))


def test_one_rank_speaks_in_every_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun's store is the same for all attempts."""
    store = TCPStore("127.0.0.1", 0, None, is_master=True, timeout=timedelta(seconds=30), wait_for_workers=False)

    def keeper(rank: int) -> Keeper:
        return Keeper(World(rank, 2, 0, "127.0.0.1", store.port), 30, 0.05, 30, lambda: replace(WAITING, pid=rank))

    for attempt in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", attempt)
        with ThreadPoolExecutor(2) as pool:
            keepers = list(pool.map(keeper, range(2)))
        assert [[sign.pid for sign in k.first_signs] for k in keepers] == [[0, 1], [0, 1]]
        assert [k.settled for k in keepers] == [False, False]
        assert [k.ask(k.settle) for k in keepers] == [True, False]
        for k in keepers:
            k.ask(k.read)
            assert k.settled
            k.close()
