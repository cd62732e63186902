"""Signs of life: what every rank tells all others through the rendezvous store, and what two looks at them say."""

import json
import os
import queue
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from torch.distributed import DistError, DistStoreError, PrefixStore, Store, TCPStore

from pipeline.distributed.launch import World
from preprocessing.base.command_line import RankError

NAMED_RANKS = 4  # of more than these a line gives the number
SETTLED = "settled"


@dataclass(frozen=True)
class Sign:
    """What a rank publishes of itself. `life` grows while the process runs, `progress` with the beats that all ranks have;
    `quiet_s`: seconds since the last beat, which was at `where`; processes of one `machine` see each other's pids."""

    life: int
    progress: int
    where: str
    quiet_s: float
    ended: bool
    host: str
    machine: str
    pid: int


Signs = Sequence[Sign]  # in rank order


def named(ranks: Sequence[int], signs: Signs) -> str:
    """rank 1 (host n2, pid 77); the first few of many."""
    shown = [f"{rank} (host {signs[rank].host}, pid {signs[rank].pid})" for rank in ranks[:NAMED_RANKS]]
    more = f" and {len(ranks) - NAMED_RANKS} more" if len(ranks) > NAMED_RANKS else ""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(shown)}{more}"


def gone(before: Signs, after: Signs) -> list[int]:
    """The ranks without a sign of life between two looks that took no leave."""
    return [rank for rank, (b, a) in enumerate(zip(before, after, strict=True)) if a.life == b.life and not a.ended]


def tell_gone(ranks: Sequence[int], signs: Signs, why: str) -> str:
    """The line about ranks that are no more."""
    return f"lost {named(ranks, signs)}, last seen at {signs[ranks[0]].where}: {why}"


def tell_ended(signs: Signs) -> str | None:
    """The line about ranks that took their leave while others, of which this is one, wait for them; None without such."""
    ended = [rank for rank, sign in enumerate(signs) if sign.ended]
    if not ended or len(ended) == len(signs):
        return None
    return f"{named(ended, signs)} ended at {signs[ended[0]].where}, and the others wait"


def tell_stuck(signs: Signs) -> str:
    """The line about ranks that all live, of which none gets on: who is behind the furthest, or that none is."""
    furthest = max(sign.progress for sign in signs)
    behind = [rank for rank, sign in enumerate(signs) if sign.progress < furthest and not sign.ended]
    if behind or len(signs) == 1:
        slow = signs[behind[0] if behind else 0]
        return f"stuck: {named(behind or [0], signs)}, not beyond {slow.where} for {slow.quiet_s:.0f} s"
    waiting = f"all {len(signs)} ranks wait at {signs[0].where} for {signs[0].quiet_s:.0f} s"
    return tell_ended(signs) or f"stuck: {waiting}: the network or a device does not answer"


def is_of_collective(error: BaseException | None) -> bool:
    """Has a collective failed, so that it may be the sound of another rank's death? gloo's errors are plain RuntimeErrors."""
    if error is None:
        return False
    return isinstance(error, DistError) or "gloo" in str(error) or is_of_collective(error.__cause__ or error.__context__)


class Keeper:
    """This rank's own connection to the store, in a thread of its own: a call to the store of a suspended process never
    returns, whatever the store's time limit, and a connection that is shared blocks while anybody waits on it.

    Publishes `sign()` every interval. Raises ValueError if not all ranks' keepers come within start_s.
    """

    def __init__(self, world: World, start_s: float, interval_s: float, wait_s: float, sign: Callable[[], Sign]) -> None:
        self.world, self.start_s, self.interval_s, self.wait_s, self.sign = world, start_s, interval_s, wait_s, sign
        self.settled, self.lost, self.closed = False, False, False  # is the verdict in the store; is the store gone?
        self._keys = [str(rank) for rank in range(world.size)]
        self._questions: queue.SimpleQueue[tuple[Callable[[Store], Any], Future[Any]]] = queue.SimpleQueue()
        self._store = self._connect()
        self._publish()
        self.first_signs = self._meet()
        self._thread = threading.Thread(target=self._run, name="watch keeper", daemon=True)
        self._thread.start()

    def _connect(self) -> Store:
        """Under a name of this attempt: torchrun's store outlives the attempts."""
        address, port, limit = self.world.master_address, self.world.master_port, timedelta(seconds=self.start_s)
        store = TCPStore(address, port, None, is_master=False, timeout=limit, wait_for_workers=False)
        attempt = (os.environ.get(f"TORCHELASTIC_{name}", "0") for name in ("RUN_ID", "RESTART_COUNT"))
        return PrefixStore("/".join(("watch", *attempt)), store)

    def _meet(self) -> list[Sign]:
        """Every rank's first sign: from then on no key is missing, and nothing waits for one."""
        try:
            return self.read(self._store)
        except DistStoreError:
            came = [rank for rank, key in enumerate(self._keys) if self._store.check([key])]
            absent = [str(rank) for rank in range(self.world.size) if rank not in came]
            few = ", ".join(absent[:NAMED_RANKS]) + (", …" if len(absent) > NAMED_RANKS else "")
            kind = RankError if self.world.rank == came[0] else ValueError  # one rank says it
            raise kind(f"of {self.world.size} ranks {few} did not come within {self.start_s:g} s") from None

    def _run(self) -> None:
        while True:
            try:
                question, answer = self._questions.get(timeout=self.interval_s)
            except queue.Empty:
                question, answer = (lambda store: None), Future()
            if self.closed:
                return
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
        try:
            # Refused at once where TCPStore would try again and again, and fill standard error.
            socket.create_connection((self.world.master_address, self.world.master_port), self.wait_s).close()
            self._store = self._connect()
        except (OSError, RuntimeError):
            return False
        return True

    def _publish(self) -> None:
        self._store.set(self._keys[self.world.rank], json.dumps(asdict(self.sign())))
        self.settled = self._store.check([SETTLED])  # answered, so what was set before is set

    def read(self, store: Store) -> list[Sign]:
        """All ranks' signs, in one request: a question for ask()."""
        return [Sign(**json.loads(text)) for text in store.multi_get(self._keys)]

    def settle(self, store: Store) -> bool:
        """Is this the rank that speaks? The first that asks is, and all see that it is settled: a question for ask()."""
        mine = str(self.world.rank)
        return bool(store.compare_set(SETTLED, "", mine).decode() == mine)

    def ask(self, question: Callable[[Store], Any], limit_s: float | None = None) -> Any:
        """The store's answer. TimeoutError if there is none within the limit (wait_s), ConnectionError if the store is gone."""
        answer: Future[Any] = Future()
        self._questions.put((question, answer))
        return answer.result(limit_s or self.wait_s)

    def close(self) -> None:
        """Ends the thread: one that is in the store's C++ while the interpreter ends can abort the process."""
        self.closed = True
        self._thread.join(self.wait_s)
