"""A function over items on several processes. Workers end with their parent, however it ends."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from preprocessing.base.processes import clean_processes

Item = TypeVar("Item")
Result = TypeVar("Result")
State = TypeVar("State")

_make_state: Callable[[], Any] | None = None
_state: Any = None


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def work(
    function: Callable[[State, Item], Result],
    items: Sequence[Item],
    make_state: Callable[[], State],
    count: int,
    done: Callable[[Result], None],
) -> None:
    """Call function(state, item) for every item, and `done` with each result as it comes, in any order.

    Each process makes its state once. With one worker, or one item, everything happens in this process. The first error
    is raised and the rest is left undone. OSError: a worker was killed.
    """
    count = min(count, len(items))
    if count <= 1:
        state = make_state()
        for item in items:
            done(function(state, item))
        return
    try:
        with ProcessPoolExecutor(count, clean_processes(), initializer=_begin, initargs=(make_state,)) as pool:
            try:
                for future in as_completed([pool.submit(_call, function, item) for item in items]):
                    done(future.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for child in multiprocessing.active_children():
                    child.terminate()
                raise
    except BrokenProcessPool:
        raise OSError("a worker process was killed (out of memory?); lower --workers, then run the command again") from None


def _begin(make_state: Callable[[], Any]) -> None:
    global _make_state
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, and the parent ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _make_state = make_state


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(function: Callable[[Any, Item], Result], item: Item) -> Result:
    global _state
    if _state is None:  # here and not in _begin: an error becomes the call's error
        assert _make_state is not None
        _state = _make_state()
    return function(_state, item)
