"""Doing something on all ranks, and agreeing on how it went: the same answer or the same error on each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from preprocessing.base.command_line import one_line

Result = TypeVar("Result")


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, seen from one of them. `gather` takes a JSON value of each and gives every rank all of them, in
    rank order; it is a collective, so all ranks must call the same methods in the same order."""

    rank: int
    size: int
    gather: Callable[[Any], list[Any]]

    @property
    def is_main(self) -> bool:
        """Is this rank 0, the one that writes and speaks?"""
        return self.rank == 0

    def together(self, work: Callable[[], Result]) -> Result:
        """Do `work` on every rank and wait for all. A ValueError or OSError of any rank is every rank's ValueError, so that no
        rank goes on alone or waits for one that is gone."""
        result, problem = None, None
        try:
            result = work()
        except (ValueError, OSError) as error:
            problem = one_line(error)
        for rank, text in enumerate(self.gather(problem)):
            if text is not None:
                raise ValueError(text if rank == 0 else f"rank {rank}: {text}")
        return result  # type: ignore[return-value]  # without a problem there is a result

    def on_main(self, work: Callable[[], Result]) -> Result | None:
        """Rank 0 does `work` while the others wait; they get None, or its ValueError."""
        return self.together(lambda: work() if self.is_main else None)

    def from_main(self, work: Callable[[], Any]) -> Any:
        """What `work` gives on rank 0, a JSON value, on every rank."""
        return self.gather(self.on_main(work))[0]


ALONE = Ranks(0, 1, lambda value: [value])
