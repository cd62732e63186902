"""Where the ranks meet before their process group is made: who is missing is said after seconds, and each failure in one line.

torch's own rendezvous waits in silence, up to the limit of the collectives, and then shows a traceback. So the ranks first come
together here, at the same address and port, and make the process group when all are there.
"""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Self

from torch.distributed import Store, TCPStore

from pipeline.distributed.heartbeat import few, of_this_attempt, rank_0_holds_store
from pipeline.distributed.launch import World
from pipeline.distributed.watchdog import say_on_stderr
from preprocessing.base.command_line import RankError

FIRST_NOTICE_S, NOTICE_EVERY_S = 10.0, 60.0
LOOK_EVERY_S = 0.05
CONNECT_S = 2.0
COUNT, ALL_CAME = "count", "all"


class AskedToStop(Exception):
    """This process was asked to stop while it waited for others; nothing has begun."""


class Waiting:
    """Says, from a thread, what this rank waits for: after `FIRST_NOTICE_S`, and then every minute. `what` gives the line at
    that moment, None while there is nothing to say."""

    def __init__(self, say: Callable[[str], None], first_s: float, asked_to_stop: Callable[[], bool]) -> None:
        self.what: Callable[[], str | None] = lambda: None
        self._asked_to_stop = asked_to_stop
        self._say, self._first_s, self._done = say, first_s, threading.Event()
        self._thread = threading.Thread(target=self._run, name="rendezvous", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()
        self._thread.join(CONNECT_S)

    def pause(self) -> None:
        """Before the main thread looks again. AskedToStop if that is the case."""
        if self._asked_to_stop():
            raise AskedToStop
        time.sleep(LOOK_EVERY_S)

    def _run(self) -> None:
        began_s, pause_s = time.monotonic(), self._first_s
        while not self._done.wait(pause_s):
            pause_s = NOTICE_EVERY_S
            with suppress(RuntimeError):  # the store is gone: the main thread meets that, too
                line = self.what()
                if line is not None:
                    self._say(f"{line}, for {time.monotonic() - began_s:.0f} s so far")


def come_together(
    world: World,
    within_s: float,
    say: Callable[[str], None] = say_on_stderr,
    first_notice_s: float = FIRST_NOTICE_S,
    asked_to_stop: Callable[[], bool] = lambda: False,
) -> Store | None:
    """Wait until all ranks of the world are here; returns what must live until their process group is made (None: one rank).

    RankError on rank 0 if its port is taken, or naming the ranks that have not come within the limit; on the first rank of a
    node if rank 0 is not there; ValueError on the others. AskedToStop if `asked_to_stop()` says so meanwhile.
    """
    if world.size == 1:
        return None
    if not 0 < world.master_port < 2**16:
        raise ValueError(f"MASTER_PORT = {world.master_port}: expected a port, 1 to {2**16 - 1}")
    until_s = time.monotonic() + within_s
    with Waiting(say, first_notice_s, asked_to_stop) as waiting:
        store = _connected(world, until_s, within_s, waiting)
        shared = of_this_attempt("coming", store)
        try:
            _wait_for_all(world, shared, until_s, within_s, waiting)
        except RuntimeError as error:  # of the store
            raise ValueError(f"rank 0 ended while rank {world.rank} waited for all {world.size} ranks") from error
    return store


def _connected(world: World, until_s: float, within_s: float, waiting: Waiting) -> Store:
    """A connection to the store, which rank 0 holds; or torchrun's agent, which is there before the ranks are."""
    place = f"{world.master_address}:{world.master_port}"
    holds = world.is_main and rank_0_holds_store()
    waiting.what = lambda: f"rank {world.rank} of {world.size} opens the rendezvous at {place}, which does not answer"
    if not holds:
        _wait_for_port(world, until_s, within_s, waiting)
    limit = timedelta(seconds=max(1.0, until_s - time.monotonic()))
    address, port = world.master_address, world.master_port
    made: Future[Store] = Future()

    def make() -> None:
        try:
            # Several stores of a process share a port (multi_tenant): torch's own, for the process group, comes after this.
            store = TCPStore(address, port, None, is_master=holds, timeout=limit, wait_for_workers=False, multi_tenant=True)
            made.set_result(store)
        except Exception as error:  # told below, in the main thread
            made.set_exception(error)

    # In a thread: a listener that is no store, and answers nothing, would hold it for good, whatever the limit.
    threading.Thread(target=make, name="store", daemon=True).start()
    try:
        while not made.done() and time.monotonic() < until_s:
            waiting.pause()
        return made.result(timeout=0)
    except TimeoutError as error:
        what = f"who listens there does not answer within {within_s:g} s"
        raise _of_node(world)(f"rank {world.rank} of {world.size}: no rendezvous at {place}: {what}") from error
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        if holds and ("EADDRINUSE" in reason or "address already in use" in reason.lower()):
            raise RankError(
                f"rank 0 cannot listen at {place}: the port is in use by another process of this host; end that one, or give "
                "another port (MASTER_PORT, torchrun's --master-port; under srun it follows from the job's number)"
            ) from error
        raise _of_node(world)(f"rank {world.rank} of {world.size}: no rendezvous at {place}: {reason}") from error


def _wait_for_port(world: World, until_s: float, within_s: float, waiting: Waiting) -> None:
    """Until somebody listens at rank 0's place."""
    place, reason = f"{world.master_address}:{world.master_port}", "no answer"
    if world.local_rank == 0:  # one rank of a node speaks
        waiting.what = lambda: f"rank {world.rank} of {world.size} waits for rank 0 at {place} ({reason})"
    else:
        waiting.what = lambda: None
    while True:
        try:
            socket.create_connection((world.master_address, world.master_port), CONNECT_S).close()
            break
        except OSError as error:
            reason = error.strerror or str(error)
        if time.monotonic() > until_s:
            raise _of_node(world)(
                f"rank {world.rank} of {world.size}: no rank 0 at {place} within {within_s:g} s ({reason}); is it running, and "
                "is that its host?"
            )
        waiting.pause()


def _wait_for_all(world: World, shared: Store, until_s: float, within_s: float, waiting: Waiting) -> None:
    """Rank 0 counts, and tells the others when all are there."""
    place = f"{world.master_address}:{world.master_port}"
    shared.set(str(world.rank), socket.gethostname())
    shared.add(COUNT, 1)
    if not world.is_main:
        waiting.what = lambda: None  # rank 0 is there, and speaks
        while not shared.check([ALL_CAME]):
            if time.monotonic() > until_s + CONNECT_S:  # rank 0 says who is missing
                raise ValueError(f"not all {world.size} ranks came to {place} within {within_s:g} s")
            waiting.pause()
        return
    waiting.what = lambda: f"rank 0 waits at {place} for {_missing(world, shared)} of {world.size} ranks"
    while shared.add(COUNT, 0) < world.size:
        if time.monotonic() > until_s:
            raise RankError(f"of {world.size} ranks {_missing(world, shared)} did not come to {place} within {within_s:g} s")
        waiting.pause()
    shared.set(ALL_CAME, "yes")


def _missing(world: World, shared: Store) -> str:
    return few([rank for rank in range(world.size) if not shared.check([str(rank)])])


def _of_node(world: World) -> type[ValueError]:
    """The error of what every rank of a node meets alike: its first one says it."""
    return RankError if world.local_rank == 0 else ValueError
