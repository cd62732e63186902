"""A run directory that is another place on each node is refused before the first step."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from pipeline.distributed.ranks import ALONE, Ranks
from pipeline.run.shared import check_shared
from tests.helpers.ranks import Failure, RankServer
from tests.helpers.running import SMALL, set_options


def test_one_directory_is_left_as_it_was(tmp_path: Path) -> None:
    check_shared(tmp_path, ALONE)
    assert list(tmp_path.iterdir()) == []


def test_a_rank_that_sees_another_directory_names_its_host_and_the_path(tmp_path: Path) -> None:
    """Rank 1 is told of a file that rank 0 has left in a directory of its own."""

    with pytest.raises(ValueError, match=rf"{tmp_path} on host .* is not the directory of that name on host n1"):
        check_shared(tmp_path, Ranks(1, 2, told_by_rank_0("no-such-file n1")), within_s=0.3)


def told_by_rank_0(words: str) -> Callable[[Any], list[Any]]:
    """What rank 1 hears in turn: no problem on rank 0, rank 0's words, and then its own problem."""
    rounds = count()
    return lambda value: [words if next(rounds) == 1 else None, value]


def test_two_ranks_with_directories_of_their_own_do_not_train(rank_server: RankServer, corpus: Path, tmp_path: Path) -> None:
    """As two nodes without a shared file system have them: the same word is another place."""
    arguments = ["pretrain", "--recipe", "tiny", "--data", corpus, "--run", tmp_path / "node-%RANK%" / "run"]
    for rank in (0, 1):
        (tmp_path / f"node-{rank}").mkdir()
    ranks = rank_server.run([*arguments, *SMALL, *set_options(train__timeout_s=20)], ranks=2)
    assert ranks.codes == [2, 2]
    assert ranks.stderr.count("it must lie on a file system that all nodes share") == 1
    assert "node-1/run on host" in ranks.stderr
    assert not list((tmp_path / "node-0" / "run").glob("checkpoints/*"))
    assert not (tmp_path / "node-1" / "run").exists()


def test_the_checkpoints_are_looked_for_too(rank_server: RankServer, corpus: Path, tmp_path: Path) -> None:
    """RUN/checkpoints may be a link to each node's own disk, in a RUN that is shared: so it is looked into by itself."""
    run = tmp_path / "run"
    arguments = ["pretrain", "--recipe", "tiny", "--data", corpus, "--run", run, *SMALL, *set_options(train__timeout_s=20)]
    ranks = rank_server.run(arguments, ranks=2, fail=Failure(1, "pipeline.run.shared:_look", count=2, errno="ENOENT"))
    assert ranks.codes == [2, 2], ranks.stdout
    assert f"rank 1: {run}/checkpoints" in ranks.stderr
