"""Where a rank of the rank server can die or fail, and how it is made to."""

import errno
import functools
import importlib
import io
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Where a rank can die or fail: MODULE:NAME as the caller looks it up, several with commas between them, or one of these
# names. The calls at all functions of a place are counted together.
PLACES = {
    "fsync": ("os:fsync",),
    "rename": ("os:rename", "os:replace"),
    "durable": ("os:fsync", "os:rename", "os:replace"),
    "write": ("builtins:open", "io:open"),  # only those that open for writing
    "batch": ("pipeline.data.pretraining:PretrainingData.batch",),
    "step": ("pipeline.optim.optimizer:PretrainingOptimizer.prepare",),  # torch wraps `step` itself
}
Fault = Mapping[str, Any]


def located(place: str) -> list[tuple[Any, str]]:
    """(owner, name) of each function that a place stands for; ValueError if there is none."""
    found = []
    for target in PLACES.get(place, place.split(",")):
        module, _, path = target.partition(":")
        *parents, name = path.split(".")
        try:
            owner = functools.reduce(getattr, parents, importlib.import_module(module))
            getattr(owner, name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"place {place!r}: {error}; expected MODULE:NAME or one of {', '.join(PLACES)}") from error
        found.append((owner, name))
    return found


def intercept(place: str, before: Callable[[int, Sequence[Any]], None]) -> None:
    """From now on `before(k, arguments)` runs before the k-th call at a place."""
    calls = itertools.count(1)

    def intercepted(function: Callable[..., Any]) -> Callable[..., Any]:
        reads = function is io.open

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            mode = kwargs.get("mode", args[1] if len(args) > 1 else "r") if reads else "w"
            if set(mode) & set("wax+"):
                before(next(calls), args)
            return function(*args, **kwargs)

        return call

    for owner, name, wrapped in [(owner, name, intercepted(getattr(owner, name))) for owner, name in located(place)]:
        setattr(owner, name, wrapped)


def arm(die: Fault | None, fail: Fault | None, rank: int) -> None:
    """Let this rank die or fail where the request says so."""
    if fail is not None and fail["rank"] in ("all", rank):
        number, first, times = getattr(errno, fail["errno"]), fail["count"], fail["times"]

        def raise_error(call: int, args: Sequence[Any]) -> None:
            if call >= first and (times is None or call < first + times):
                named = args[:1] if args and isinstance(args[0], (str, os.PathLike)) else ()
                raise OSError(number, os.strerror(number), *map(os.fspath, named))

        intercept(fail["at"], raise_error)
    if die is not None and die["rank"] in ("all", rank):
        count, everyone = die["count"], die["everyone"]

        def kill(call: int, args: Sequence[Any]) -> None:
            if call == count:
                os.kill(0 if everyone else os.getpid(), die["signal"])  # 0: all of the process group in one call

        intercept(die["at"], kill)
