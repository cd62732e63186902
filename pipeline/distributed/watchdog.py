"""One rank dies or hangs: all others end within a bounded time, and one of them says in one line which rank it was.

Every rank has a Watch: the main thread's beats, a Keeper's thread that alone talks to the rendezvous store (signs.py) and
may block there for good, and a judge's thread that ends the process. The judge looks every interval: has some rank settled
it, do the launcher, the processes of this machine and the store live, does the main thread get on?

Who first writes to the store that it is settled speaks, the others end silently when they see it: so there is one line.
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

from pipeline.distributed.heartbeat import Keeper, Sign, gone, is_of_collective, named, tell_ended, tell_gone, tell_stuck
from pipeline.distributed.launch import World, is_launched
from preprocessing.base.command_line import RankError


def process_state(pid: int) -> str:
    """Linux's letter for a process: of Z and X only the exit code is left, T is suspended; "" if there is none. Where /proc
    does not tell, it counts as running: R."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0].decode()
    except (FileNotFoundError, ProcessLookupError):
        return "" if Path("/proc/self/stat").exists() else "R"
    except OSError:
        return "R"


def machine() -> str:
    """What processes share that see each other's pids: a container has pids of its own."""
    space = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {os.readlink(space) if space.exists() else ''}"


def say_on_stderr(text: str) -> None:
    """One line on standard error."""
    print(text, file=sys.stderr, flush=True)


class Watch:
    """This rank's watch over itself and all others, from its making, on all ranks after the process group's, to close().

    `timeout_s`: so long after the last beat a run is stuck; before the first one, while it starts, its collectives' own limit
    holds. That a process is gone is found within seconds. `start_s`: so long
    the ranks may take to come together; ValueError on those that came if not all do.
    `request_stop(why)` is called once, from a thread, when the launcher is gone: the loop is to save and end by itself.
    `say` is given the one line, on one rank.
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
        self.interval_s = min(0.5, timeout_s / 10)
        self.wait_s = 6 * self.interval_s  # what runs shows it within these, on a busy machine, too
        self._host, self._machine, self._parent = socket.gethostname(), machine(), os.getppid()
        self._life, self._beats, self._progress, self._where, self._quiet_s = 0, 0, 0, "the start", 0.0
        self._counting, self._ending, self._closed = threading.Lock(), threading.Lock(), threading.Event()
        self._stop_requested, self._ended = False, False
        # torchrun's agent holds the store that its workers use; elsewhere rank 0 does.
        self._rank_0_holds = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True)
        self._keeper = Keeper(world, start_s, self.interval_s, self.wait_s, self._sign) if world.size > 1 else None
        self._known = self._keeper.first_signs if self._keeper else [self._sign()]
        self._neighbours = {r for r, s in enumerate(self._known) if s.machine == self._machine and r != world.rank}
        self._judge_thread = threading.Thread(target=self._judge, name="watch judge", daemon=True)
        self._judge_thread.start()
        atexit.register(self._halt)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """close() at a normal end, and for a ValueError, which by the project's rule all ranks have; end_if_lost() for a
        collective's error. With any other error this rank is gone for the others."""
        if error is None:
            self.close()
        elif isinstance(error, ValueError) and not isinstance(error, RankError):
            self.close(self.wait_s)  # then it is to be told, whatever the others do
        else:
            self.end_if_lost(error)
            self._halt()

    def beat(self, where: str, counted: bool = True) -> None:
        """The caller has got on to `where`. From any thread, but equally often on all ranks: who has fewer beats is behind.
        One before what a rank does alone and one before it waits for others tell the one that hangs from those who wait.
        Not `counted`, it only says that this rank, for which others may wait, is at work."""
        with self._counting:
            self._beats += 1
            self._progress += counted
            self._where = where

    def end_if_lost(self, error: BaseException) -> None:
        """For an error of the main thread. If a collective failed, looks for some intervals; does not return if a rank is
        gone or has ended: then this process ends with 1, and one rank has said so."""
        if self._keeper is None or not is_of_collective(error):
            return
        try:
            before, after = self._two_looks()
        except OSError:
            self._end(self._store_problem())
        text = self._tell_gone(before, after) or tell_ended(after)
        if text is not None:
            self._end(text)

    def verdict(self) -> str | None:
        """Who holds up the run, in one line, by two looks some intervals apart. None if some rank has had a beat within the
        timeout, though not for longer than a second timeout."""
        try:
            before, after = self._two_looks()
        except OSError:
            return self._store_problem()
        moving = any(sign.quiet_s < self.timeout_s - self.wait_s and not sign.ended for sign in after)
        stuck = None if moving and self._quiet_s < 2 * self.timeout_s else tell_stuck(after)
        return self._tell_gone(before, after) or stuck

    def close(self, limit_s: float = math.inf) -> None:
        """This rank takes its leave: at its normal end, or after an error that every rank has. Nobody will miss it.

        Where rank 0 holds the store it waits for the others' leave, by the same rules as for their work, up to the limit."""
        until_s = time.monotonic() + limit_s
        self._ended = True
        holds = self._keeper is not None and self.world.is_main and self._rank_0_holds
        if not holds:
            self._closed.set()  # with everybody's leave the store may go
        with contextlib.suppress(OSError):  # without a store there is nobody to tell
            while not all(sign.ended for sign in self._look(self.timeout_s)) and holds and time.monotonic() < until_s:
                self._closed.wait(self.interval_s)
        self._halt()

    def _halt(self) -> None:
        """No thread may be in C++ when the interpreter ends."""
        self._closed.set()
        self._judge_thread.join(4 * self.wait_s)
        if self._keeper:
            self._keeper.close()

    def _sign(self) -> Sign:
        self._life += 1
        with self._counting:
            progress, where = self._progress, self._where
        return Sign(self._life, progress, where, self._quiet_s, self._ended, self._host, self._machine, os.getpid())

    def _look(self, limit_s: float | None = None) -> list[Sign]:
        return self._keeper.ask(self._keeper.read, limit_s) if self._keeper else [self._sign()]

    def _two_looks(self) -> tuple[list[Sign], list[Sign]]:
        before = self._look()
        self._closed.wait(self.wait_s)
        return before, self._look()

    def _judge(self) -> None:
        beats, last_s = 0, time.monotonic()
        while True:
            began_s = time.monotonic()
            if self._closed.wait(self.interval_s):
                return
            now_s = time.monotonic()
            # A job that was suspended as a whole has not been waiting, whatever the clock says.
            passed_s = began_s - last_s + min(now_s - began_s, 2 * self.interval_s)
            self._quiet_s = self._quiet_s + passed_s if beats and self._beats == beats else 0.0
            beats, last_s = self._beats, now_s
            self._look_for_launcher()
            text = self._problem()
            if text is not None and not self._closed.is_set():
                self._end(text)

    def _look_for_launcher(self) -> None:
        orphan = is_launched(os.environ) and os.getppid() != self._parent
        agent_lost = self._keeper is not None and self._keeper.lost and not self._rank_0_holds
        if (orphan or agent_lost) and not self._stop_requested:
            self._stop_requested = True
            self.request_stop("the launcher is gone")

    def _problem(self) -> str | None:
        """What is wrong with the run, in one line, if anything is."""
        if self._keeper and self._keeper.settled:
            return "another rank speaks"
        if self._keeper and self._keeper.lost and self._rank_0_holds:
            return self._store_problem()
        return self._dead_neighbours() or (self.verdict() if self._quiet_s > self.timeout_s else None)

    def _dead_neighbours(self) -> str | None:
        """Processes of this machine that are no more and took no leave: certain, where a silent one may only be slow."""

        def dead() -> list[int]:
            return [rank for rank in sorted(self._neighbours) if process_state(self._known[rank].pid) in ("", "Z", "X")]

        if not dead():
            return None
        self._closed.wait(self.interval_s)  # they often die together
        ranks = dead()
        try:
            signs = self._look()  # after their death: a leave that one took is in the store
        except OSError:
            return None  # the store is gone or silent: the next round's question
        self._neighbours -= {rank for rank in ranks if signs[rank].ended}
        ranks = [rank for rank in ranks if not signs[rank].ended]
        return tell_gone(ranks, signs, "the process is gone") if ranks else None

    def _tell_gone(self, before: list[Sign], after: list[Sign]) -> str | None:
        ranks = gone(before, after)
        return tell_gone(ranks, after, "killed, suspended or cut off") if ranks else None

    def _store_problem(self) -> str:
        how = "is gone" if self._keeper and self._keeper.lost else "does not answer"
        if self._rank_0_holds:
            return f"lost {named([0], self._known)}: the rendezvous store in its process {how}; this rank is at {self._where}"
        where = f"{self.world.master_address}:{self.world.master_port}"
        return f"lost the launcher on the first node: its rendezvous store at {where} {how}; this rank is at {self._where}"

    def _end(self, text: str) -> NoReturn:
        """Say it, if this is the rank that speaks, and end the process, whatever hangs."""
        self._ending.acquire()  # for good: of two threads that come here the first one ends the process
        limit = threading.Timer(5 * self.wait_s, os._exit, (1,))  # nobody may be reading standard error
        limit.daemon = True
        limit.start()
        try:
            speaks = self._speaks()
            if speaks:
                self.say(text)
            if speaks or self.world.is_main:  # the others see that this one lives and speaks, or read the store that it holds
                time.sleep(4 * self.interval_s)
        finally:
            os._exit(1)

    def _speaks(self) -> bool:
        if self._keeper is None:
            return True
        try:
            return not self._keeper.settled and bool(self._keeper.ask(self._keeper.settle))
        except OSError:
            return self._speaks_without_store()

    def _speaks_without_store(self) -> bool:
        """Nothing can be settled: it is the lowest rank that lives, as far as a process can tell without the others."""
        holder = self._known[0].machine
        for rank, sign in enumerate(self._known):
            if rank == 0 and self._rank_0_holds:
                continue
            if sign.machine == self._machine:
                lives = process_state(sign.pid) not in ("", "Z", "X", "T")
            else:
                lives = sign.machine != holder or self._holder_is_up()
            if lives:
                return rank == self.world.rank
        return False

    def _holder_is_up(self) -> bool:
        """The machine of the store: one that refuses a connection has lost the process alone."""
        try:
            socket.create_connection((self.world.master_address, self.world.master_port), self.wait_s).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return True
