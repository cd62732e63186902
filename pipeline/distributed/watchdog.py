"""If one rank dies or hangs, all others end within a bounded time, and each says in one line which rank it was.

Every rank has a Watchdog with two threads beside the main one. One publishes heartbeats in the rendezvous store (heartbeat.py)
and may block there for good; the other looks every interval whether the launcher, the processes of this machine and the store
live and whether the main thread advances, and ends the process if not.

The rule about who speaks: every rank that ends prints its own line, which starts with its rank. The first one that finds
something wrong leaves its line in the store, and the others find it there, end and repeat it; those for whom the store does not
answer find out for themselves.
"""

import atexit
import contextlib
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from pipeline.distributed.heartbeat import (
    ANSWER_INTERVALS,
    VERDICT,
    Heartbeat,
    HeartbeatStore,
    describe_ranks,
    ended_line,
    is_collective_error,
    lost_line,
    rank_0_holds_store,
    silent_ranks,
    stuck_line,
)
from pipeline.distributed.launch import World, is_launched
from preprocessing.base.command_line import RankError

ERROR_INTERVALS = 20  # an error of all ranks is told after so long at the latest, whatever the others do
LINGER_INTERVALS = 4  # so long a rank that has given its verdict lives on: the others shall find the verdict, not a dead rank


def is_dead(pid: int) -> bool:
    """Is there no process with this number, or only the exit code of one? False where /proc does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return Path("/proc/self/stat").exists()
    except OSError:
        return False


def machine() -> str:
    """A name that two processes share if they see each other's pids: the host's, and that of the pid namespace, for a
    container has pids of its own."""
    space = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {os.readlink(space) if space.exists() else ''}"


def say_on_stderr(text: str) -> None:
    """One line on standard error, in one piece: several ranks may share it and speak at once."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class MainThread:
    """How far this rank's main thread has come: what it last reported, how often, and for how long it has been quiet."""

    def __init__(self) -> None:
        self.beats, self.progress, self.where, self.quiet_s, self.ended = 0, 0, "the start", 0.0, False
        self._published = 0
        self._lock = threading.Lock()  # beats come from any thread

    def beat(self, where: str, counted: bool) -> None:
        """It has reached `where`."""
        with self._lock:
            self.beats += 1
            self.progress += counted
            self.where = where

    def heartbeat(self) -> Heartbeat:
        """The next heartbeat to publish."""
        with self._lock:
            self._published += 1
            told = (self._published, self.progress, self.where, self.quiet_s, self.ended)
        return Heartbeat(*told, socket.gethostname(), machine(), os.getpid())


class Watchdog:
    """This rank's watchdog, over itself and all others: made on all ranks after the process group, ended by close().

    `timeout_s`: a run is stuck if no rank has reported progress for so long. It counts from the first beat; before that, while
    the run starts, the collectives' own limit holds. A process that is gone is found within seconds.
    `request_stop(why)` is called once, from a thread, when the launcher is gone: the loop is to save and end by itself.
    `say` gets this rank's one line before its process ends.
    `start_s`: so long the ranks may take to come together. ValueError on those that came if not all do.
    """

    def __init__(
        self,
        world: World,
        timeout_s: float,
        request_stop: Callable[[str], None],
        say: Callable[[str], None] = say_on_stderr,
        start_s: float = 120.0,
    ) -> None:
        self.world, self.timeout_s, self.request_stop, self.say = world, timeout_s, request_stop, say
        self._main = MainThread()
        self._closed, self._ending = threading.Event(), threading.Lock()
        beat = self._main.heartbeat
        self._store = HeartbeatStore(world, start_s, self.interval_s, beat) if world.size > 1 else None
        self._first = self._store.first if self._store else [beat()]
        self._thread = threading.Thread(target=self._watch, args=(os.getppid(),), name="watchdog", daemon=True)
        self._thread.start()
        atexit.register(self._halt)

    @property
    def interval_s(self) -> float:
        """Seconds between two looks, and between two heartbeats."""
        return min(0.5, self.timeout_s / 10)

    @property
    def wait_s(self) -> float:
        """Within these seconds whatever runs has given a sign of life, on a busy machine, too."""
        return ANSWER_INTERVALS * self.interval_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """close() at a normal end, and for a ValueError, which by the project's rule all ranks have; end_if_lost() for a
        collective's error. With any other error this rank is lost for the others."""
        if error is None:
            self.close()
        elif isinstance(error, ValueError) and not isinstance(error, RankError):
            self.close(ERROR_INTERVALS * self.interval_s)
        else:
            self.end_if_lost(error)
            self._halt()

    def beat(self, where: str, counted: bool = True) -> None:
        """Report that the caller has reached `where`. From any thread, but equally often on all ranks: a rank with fewer beats
        is behind. One beat before what a rank does alone and one before it waits for others tell a rank that hangs from those
        that wait for it. One that is not `counted` only says that this rank, for which others may wait, is at work."""
        self._main.beat(where, counted)

    def end_if_lost(self, error: BaseException) -> None:
        """For an error of the main thread. If a collective failed, it looks for some intervals whether a rank is lost or has
        ended; if so it does not return: this process says it and ends with exit code 1."""
        if self._store is None or not is_collective_error(error):
            return
        try:
            before, after = self._read_twice()
        except OSError:
            self._end(self._store_problem())
        text = self._store.verdict or self._lost(before, after) or ended_line(after)
        if text:
            self._end(text)

    def verdict(self) -> str | None:
        """Who holds up the run, in one line, from two readings some intervals apart. None if some rank has reported progress
        within the timeout, though not for longer than a second timeout."""
        try:
            before, after = self._read_twice()
        except OSError:
            return self._store_problem()
        moving = any(rank.quiet_s < self.timeout_s - self.wait_s and not rank.ended for rank in after)
        stuck = None if moving and self._main.quiet_s < 2 * self.timeout_s else stuck_line(after)
        return self._lost(before, after) or stuck

    def close(self, limit_s: float = math.inf) -> None:
        """This rank leaves the run: at its normal end, or after an error that every rank has. No other will report it as lost.

        A rank that holds the store waits until the others have left, too, under the same rules as for their work, but not
        longer than `limit_s`."""
        until_s = time.monotonic() + limit_s
        self._main.ended = True
        holds = self._store is not None and self.world.is_main and rank_0_holds_store()
        if not holds:
            self._closed.set()  # once all have left, the store may go
        with contextlib.suppress(OSError):  # without a store there is nobody to tell
            while not all(rank.ended for rank in self._read(self.timeout_s)) and holds and time.monotonic() < until_s:
                self._closed.wait(self.interval_s)
        self._halt()

    def _halt(self) -> None:
        """End the threads: none may be in C++ when the interpreter ends."""
        self._closed.set()
        self._thread.join(4 * self.wait_s)
        if self._store:
            self._store.close()

    def _read(self, limit_s: float | None = None) -> list[Heartbeat]:
        return self._store.ask(self._store.read, limit_s) if self._store else [self._main.heartbeat()]

    def _read_twice(self) -> tuple[list[Heartbeat], list[Heartbeat]]:
        before = self._read()
        self._closed.wait(self.wait_s)
        return before, self._read()

    def _watch(self, launcher: int) -> None:
        """Every interval until close(): how long has the main thread been quiet, and is anything wrong?"""
        beats, last_s, stop_requested = 0, time.monotonic(), False
        while True:
            began_s = time.monotonic()
            if self._closed.wait(self.interval_s):
                return
            now_s = time.monotonic()
            # A job that was suspended as a whole has not been waiting, whatever the clock says.
            passed_s = began_s - last_s + min(now_s - began_s, 2 * self.interval_s)
            self._main.quiet_s = self._main.quiet_s + passed_s if beats and self._main.beats == beats else 0.0
            beats, last_s = self._main.beats, now_s
            if not stop_requested and self._launcher_is_gone(launcher):
                stop_requested = True
                self.request_stop("the launcher is gone")
            text = self._problem()
            if text and not self._closed.is_set():
                self._end(text)

    def _launcher_is_gone(self, launcher: int) -> bool:
        orphan = is_launched(os.environ) and os.getppid() != launcher
        agent_lost = self._store is not None and self._store.lost and not rank_0_holds_store()
        return orphan or agent_lost

    def _problem(self) -> str | None:
        """What is wrong with the run, in one line, if anything is."""
        if self._store and self._store.verdict:
            return self._store.verdict
        if self._store and self._store.lost and rank_0_holds_store():
            return self._store_problem()
        return self._dead_neighbours() or (self.verdict() if self._main.quiet_s > self.timeout_s else None)

    def _dead_neighbours(self) -> str | None:
        """Ranks of this machine whose process is gone though they had not left the run: that is certain, where a rank that only
        publishes nothing may be slow."""

        def dead() -> list[int]:
            here = self._first[self.world.rank].machine
            return [rank for rank, first in enumerate(self._first) if first.machine == here and is_dead(first.pid)]

        if not dead():
            return None
        self._closed.wait(self.interval_s)  # they often die together
        ranks = dead()
        try:
            heartbeats = self._read()  # after their death: if one of them had left the run, it is in the store
        except OSError:
            return None  # the store is gone or silent: the next round's question
        ranks = [rank for rank in ranks if not heartbeats[rank].ended]
        return lost_line(ranks, heartbeats, "the process is gone") if ranks else None

    def _lost(self, before: list[Heartbeat], after: list[Heartbeat]) -> str | None:
        ranks = silent_ranks(before, after)
        return lost_line(ranks, after, "killed, suspended or cut off") if ranks else None

    def _store_problem(self) -> str:
        how = "is gone" if self._store and self._store.lost else "does not answer"
        here = f"rank {self.world.rank} is at {self._main.where}"
        if rank_0_holds_store():
            return f"lost {describe_ranks([0], self._first)}: the rendezvous store in its process {how}; {here}"
        where = f"{self.world.master_address}:{self.world.master_port}"
        return f"lost the launcher on the first node: its rendezvous store at {where} {how}; {here}"

    def _end(self, text: str) -> NoReturn:
        """Say it, leave it in the store for the others, and end the process with exit code 1, whatever hangs."""
        self._ending.acquire()  # for good: of two threads that come here the first one ends the process
        limit = threading.Timer(5 * self.wait_s, os._exit, (1,))  # nobody may be reading standard error
        limit.daemon = True
        limit.start()
        try:
            self.say(f"rank {self.world.rank}: {text}")
            if self._store:
                self._store.ask(lambda store: store.set(VERDICT, text))
                time.sleep(LINGER_INTERVALS * self.interval_s)
        finally:
            os._exit(1)
