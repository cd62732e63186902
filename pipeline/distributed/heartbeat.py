"""What every rank publishes of itself in the rendezvous store, and what the heartbeats of all ranks say about the run."""

import json
import os
import queue
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from torch.distributed import DistError, PrefixStore, Store, TCPStore

from pipeline.distributed.launch import World
from preprocessing.base.command_line import RankError

NAMED_RANKS = 4  # a line names this many ranks and counts the others
VERDICT = "verdict"  # the key under which the ranks find that one of them is ending the run, and why
# How torch's client begins (TCPStore.cpp): VALIDATE with its number, then PING with one that comes back.
ECHO = struct.pack("=I", 1)
GREETING = struct.pack("=BIB", 0, 0x3C85F7CE, 13) + ECHO
ANSWER_INTERVALS = 6  # whatever runs, on a busy machine too, has published and been answered after so many intervals
RECONNECT_INTERVALS = 20  # a store on a busy machine can take more than those; one whose process has ended refuses at once


@dataclass(frozen=True)
class Heartbeat:
    """What one rank says of itself at one moment.

    `published` grows with each heartbeat, so it stands still when the process is dead, suspended or cut off. `progress` counts
    the places in the program that the main thread has reached, equally on all ranks; the last one was `where`, `quiet_s`
    seconds ago. `ended`: the rank has left the run on purpose. Processes with the same `machine` see each other's pids.
    """

    published: int
    progress: int
    where: str
    quiet_s: float
    ended: bool
    host: str
    machine: str
    pid: int


Heartbeats = Sequence[Heartbeat]  # in rank order


def describe_ranks(ranks: Sequence[int], heartbeats: Heartbeats) -> str:
    """For example "rank 1 (host n2, pid 77)"; of many ranks the first few and the number of the others."""
    shown = [f"{rank} (host {heartbeats[rank].host}, pid {heartbeats[rank].pid})" for rank in ranks[:NAMED_RANKS]]
    more = f" and {len(ranks) - NAMED_RANKS} more" if len(ranks) > NAMED_RANKS else ""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(shown)}{more}"


def silent_ranks(before: Heartbeats, after: Heartbeats) -> list[int]:
    """The ranks that have published nothing between two readings, though they have not left the run."""
    return [rank for rank, (b, a) in enumerate(zip(before, after, strict=True)) if a.published == b.published and not a.ended]


def lost_line(ranks: Sequence[int], heartbeats: Heartbeats, why: str) -> str:
    """The line about ranks whose process is dead, suspended or cut off."""
    return f"lost {describe_ranks(ranks, heartbeats)}, last seen at {heartbeats[ranks[0]].where}: {why}"


def ended_line(heartbeats: Heartbeats) -> str | None:
    """The line about ranks that have left the run while others, this one among them, wait for them; None if there are none."""
    ended = [rank for rank, heartbeat in enumerate(heartbeats) if heartbeat.ended]
    if not ended or len(ended) == len(heartbeats):
        return None
    return f"{describe_ranks(ended, heartbeats)} ended at {heartbeats[ended[0]].where}, and the others wait"


def stuck_line(heartbeats: Heartbeats) -> str:
    """The line about a run in which all processes live and no main thread advances: who has the least progress, or that all
    have the same."""
    furthest = max(heartbeat.progress for heartbeat in heartbeats)
    behind = [rank for rank, heartbeat in enumerate(heartbeats) if heartbeat.progress < furthest and not heartbeat.ended]
    if behind or len(heartbeats) == 1:
        slow = heartbeats[behind[0] if behind else 0]
        return f"stuck: {describe_ranks(behind or [0], heartbeats)}, not beyond {slow.where} for {slow.quiet_s:.0f} s"
    waiting = f"all {len(heartbeats)} ranks wait at {heartbeats[0].where} for {heartbeats[0].quiet_s:.0f} s"
    return ended_line(heartbeats) or f"stuck: {waiting}: the network or a device does not answer"


def is_collective_error(error: BaseException | None) -> bool:
    """Has a collective failed, which may mean that another rank is dead? gloo's errors are plain RuntimeErrors."""
    if error is None:
        return False
    return isinstance(error, DistError) or "gloo" in str(error) or is_collective_error(error.__cause__ or error.__context__)


def rank_0_holds_store() -> bool:
    """Does rank 0's process hold the rendezvous store? Under torchrun its agent does, and says so to its workers."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True)


Request = tuple[Callable[[Store], Any], Future[Any]]  # a question to the store, and where its answer goes


def of_this_attempt(purpose: str, store: Store) -> Store:
    """The store with keys that are of a purpose and of this attempt alone: torchrun's store is the same for all attempts."""
    attempt = (os.environ.get(f"TORCHELASTIC_{name}", "0") for name in ("RUN_ID", "RESTART_COUNT"))
    return PrefixStore("/".join((purpose, *attempt)), store)


def store_answers(address: str, port: int, limit_s: float) -> bool:
    """Does a store live there? A process that is ending takes connections still and answers none; torch's own client would try
    again and again for the whole limit, and fill standard error."""
    try:
        with socket.create_connection((address, port), limit_s) as connection:
            connection.settimeout(limit_s)
            connection.sendall(GREETING)
            return connection.recv(len(ECHO), socket.MSG_WAITALL) == ECHO
    except OSError:
        return False


def few(ranks: Sequence[int]) -> str:
    """For example "1, 3"; of many the first few."""
    return ", ".join(map(str, ranks[:NAMED_RANKS])) + (", …" if len(ranks) > NAMED_RANKS else "")


class HeartbeatStore:
    """This rank's own connection to the rendezvous store. It publishes `heartbeat()` every `interval_s` from its own thread.

    Only that thread calls the store: a call to the store of a suspended process never returns, whatever the store's time
    limit, and a connection that is shared blocks while anybody waits on it.

    `first`: every rank's first heartbeat. `lost`: the store is gone. `verdict`: why some rank is ending the run, if one is.
    Raises RankError if the store does not answer at the start; ValueError if not all ranks have come within `start_s`, on the
    lowest of those that came a RankError, which the command line prints.
    """

    def __init__(self, world: World, start_s: float, interval_s: float, heartbeat: Callable[[], Heartbeat]) -> None:
        self.world, self.start_s, self.interval_s, self.heartbeat = world, start_s, interval_s, heartbeat
        self.lost, self.verdict = False, ""
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        try:
            self._store = self._connect(start_s)
            self._publish()
        except RuntimeError as error:
            place, reason = f"{world.master_address}:{world.master_port}", str(error).splitlines()[0]
            raise RankError(f"rank {world.rank}: the rendezvous store at {place} does not answer: {reason}") from error
        self.first = self._wait_for_all()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def ask(self, question: Callable[[Store], Any], limit_s: float | None = None) -> Any:
        """What the store answers to `question`, for example `store.ask(store.read)`. TimeoutError if there is no answer within
        the limit (by default some intervals), ConnectionError if the store is gone."""
        answer: Future[Any] = Future()
        self._requests.put((question, answer))
        return answer.result(limit_s or ANSWER_INTERVALS * self.interval_s)

    def read(self, store: Store) -> list[Heartbeat]:
        """A question for ask(): the newest heartbeats of all ranks, in one request."""
        return [Heartbeat(**json.loads(text)) for text in store.multi_get(self._keys())]

    def close(self) -> None:
        """Ends the thread: one that is in the store's C++ while the interpreter ends can abort the process."""
        self._requests.put(None)
        self._thread.join(ANSWER_INTERVALS * self.interval_s)

    def _keys(self) -> list[str]:
        return [str(rank) for rank in range(self.world.size)]

    def _connect(self, limit_s: float) -> Store:
        """A connection to the store that rank 0, or torchrun's agent, holds."""
        address, port, limit = self.world.master_address, self.world.master_port, timedelta(seconds=limit_s)
        store = TCPStore(address, port, None, is_master=False, timeout=limit, wait_for_workers=False)
        return of_this_attempt("heartbeat", store)

    def _wait_for_all(self) -> list[Heartbeat]:
        """Every rank's first heartbeat: from then on no key is missing, and no request waits for one."""
        try:
            return self.read(self._store)
        except RuntimeError:  # a timeout, or a store that is gone: the rank that keeps it may end before the others
            try:
                came = [rank for rank, key in enumerate(self._keys()) if self._store.check([key])]
            except RuntimeError:
                raise ValueError(f"rank 0 ended while this rank waited for all {self.world.size} ranks") from None
            absent = few([rank for rank in range(self.world.size) if rank not in came])
            kind = RankError if self.world.rank == came[0] else ValueError
            raise kind(f"of {self.world.size} ranks {absent} did not come within {self.start_s:g} s") from None

    def _run(self) -> None:
        while True:
            try:
                request = self._requests.get(timeout=self.interval_s)
            except queue.Empty:
                request = (lambda store: None), Future()
            if request is None:
                return
            question, answer = request
            try:
                answer.set_result(self._serve(question))
            except ConnectionError as error:
                answer.set_exception(error)

    def _serve(self, question: Callable[[Store], Any]) -> Any:
        """Publish, then ask; once more over a new connection if the old one broke while the store's process lives."""
        for again in (False, True):
            if self.lost:
                break
            try:
                self._publish()
                return question(self._store)
            except RuntimeError:
                self.lost = again or not self._reconnect()
        raise ConnectionError("the rendezvous store is gone")

    def _reconnect(self) -> bool:
        limit_s = RECONNECT_INTERVALS * self.interval_s
        if not store_answers(self.world.master_address, self.world.master_port, limit_s):
            return False
        try:
            self._store = self._connect(limit_s)
        except RuntimeError:
            return False
        return True

    def _publish(self) -> None:
        self._store.set(str(self.world.rank), json.dumps(asdict(self.heartbeat())))
        if self._store.check([VERDICT]):  # the answer to this also means that what was set before is in the store
            self.verdict = self._store.get(VERDICT).decode()
