"""Work that all ranks do together: each gets the same answer or the same error, so that none goes on alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from preprocessing.base.command_line import one_line

Result = TypeVar("Result")


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, seen from one of them.

    `gather` is a collective: every rank calls it with a JSON value and gets the list of all ranks' values, in rank order. All
    methods use it, so all ranks must call the same methods in the same order.
    """

    rank: int
    size: int
    gather: Callable[[Any], list[Any]]

    @property
    def is_main(self) -> bool:
        """Is this rank 0, which writes the run's files and its console output?"""
        return self.rank == 0

    def together(self, work: Callable[[], Result]) -> Result:
        """Do `work` on every rank, wait until all have done it, and return this rank's result.

        If it raises a ValueError or OSError on some rank, every rank raises a ValueError with the message of the lowest such
        rank, so that no rank goes on alone or waits for one that has ended."""
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
        """Do `work` on rank 0 while the other ranks wait. Rank 0 gets its result, the others None; an error is raised on all
        ranks, as in together()."""
        return self.together(lambda: work() if self.is_main else None)

    def from_main(self, work: Callable[[], Any]) -> Any:
        """Do `work` on rank 0 and return its result, a JSON value, on every rank; an error is raised on all ranks, as in
        together()."""
        return self.gather(self.on_main(work))[0]


ALONE = Ranks(0, 1, lambda value: [value])  # a run of one process, without a process group
