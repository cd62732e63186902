"""Which checkpoint a run goes on from: the newest that is whole, and none that is another run's."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipeline.checkpoint.layout import CHECKPOINTS, dangling_latest, step_directories
from pipeline.checkpoint.reader import Checkpoint
from pipeline.distributed.ranks import ALONE, Ranks


def newest(run_dir: Path, complain: Callable[[str], None], ranks: Ranks = ALONE) -> Checkpoint | None:
    """The newest checkpoint that is whole, every byte of it verified, each rank hashing its share of the files. Each one that
    is not whole is complained of, and so is a `latest` that points at nothing. None if there is no checkpoint at all;
    ValueError if there are some and none is whole (starting over in silence would hide the loss)."""
    dangling = ranks.from_main(lambda: dangling_latest(run_dir))
    if dangling is not None:
        complain(f"ALARM: {run_dir}/checkpoints/latest names {dangling!r}, which is not there: trying the newest that is")
    names = _names(run_dir, ranks)
    for name in names:
        try:
            return ranks.together(partial(verified, run_dir / CHECKPOINTS / name, ranks))
        except ValueError as error:
            if _deleted_meanwhile(run_dir, name, ranks):
                return newest(run_dir, complain, ranks)
            complain(f"ALARM: checkpoint {name} is not usable, trying the one before it: {error}")
    if names or dangling is not None or ranks.from_main(lambda: (run_dir / "summary.json").exists()):
        raise ValueError(
            f"{run_dir}/checkpoints: {len(names)} checkpoints and none is whole; --fresh starts over and puts this run aside"
        )
    return None


def _names(run_dir: Path, ranks: Ranks) -> list[str]:
    names: list[str] = ranks.from_main(lambda: [directory.name for directory in step_directories(run_dir)])
    return names


def _deleted_meanwhile(run_dir: Path, name: str, ranks: Ranks) -> bool:
    """Has a run that goes on beside this process (`evaluate`) saved a newer one and deleted this one?"""
    names = _names(run_dir, ranks)
    return bool(names) and name not in names


def verified(directory: Path, ranks: Ranks) -> Checkpoint:
    """The checkpoint of a directory, each rank hashing its share of the files; ValueError if its share is not whole."""
    found = Checkpoint(directory)
    found.verify(ranks.rank, ranks.size)
    return found
