"""A job whose ranks die or hang, as test_watchdog.py sees it from outside."""

import contextlib
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

START_S = 90  # of processes on a busy machine
SOON_S = 15  # what is promised is a few seconds


class Job:
    """A launcher and its ranks, seen through two pipes: when both are at their end, every process has ended."""

    def __init__(self, directory: Path) -> None:
        self.out, self.err = directory / "out", directory / "err"
        self.said: dict[Path, list[str]] = {self.out: [], self.err: []}
        self.changed, self.open = threading.Condition(), 2
        self._reserved = socket.socket()  # stays bound: no other process is given the port, and the store can have it
        self._reserved.bind(("127.0.0.1", 0))
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.port = self._reserved.getsockname()[1]
        directory.mkdir()
        for path in self.said:
            os.mkfifo(path)
            threading.Thread(target=self._read, args=(path,), daemon=True).start()

    def _read(self, path: Path) -> None:
        with path.open() as pipe:
            for line in pipe:
                with self.changed:
                    self.said[path].append(line.rstrip("\n"))
                    self.changed.notify_all()
        with self.changed:
            self.open -= 1
            self.changed.notify_all()

    def until(self, met: Callable[[], bool], limit_s: float) -> float:
        """Waits until what the processes have said meets the condition; the seconds it took."""
        began_s = time.monotonic()
        with self.changed:
            self.changed.wait_for(lambda: met() or self.open == 0, limit_s)
            assert met(), f"not in {limit_s:g} s: {self.said[self.out][-9:]} {self.said[self.err]}"
        return time.monotonic() - began_s

    def until_said(self, words: str, times: int) -> None:
        """Waits until the ranks have ended so many lines with these words."""
        self.until(lambda: sum(line.endswith(words) for line in self.said[self.out]) >= times, START_S)

    def end(self, limit_s: float = SOON_S) -> float:
        """Waits until no process is left; the seconds it took."""
        return self.until(lambda: self.open == 0, limit_s)

    def clean_up(self) -> None:
        """A scenario that failed leaves no process behind."""
        self._reserved.close()
        for pid in [*self.pids().values(), *self.agent()] if self.open else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _found(self, pattern: str) -> dict[int, int]:
        """By rank."""
        matches = (re.match(pattern, line) for line in self.said[self.out])
        return {int(match[1]): int(match[2]) for match in matches if match}

    def pids(self) -> dict[int, int]:
        return self._found(r"rank (\d+) pid (\d+)")

    def exit_codes(self) -> dict[int, int]:
        """Of those that have ended; negative for a signal."""
        return self._found(r"rank (\d+) ended with (-?\d+)")

    def agent(self) -> list[int]:
        """The pid of torchrun's agent, if there is one."""
        return [int(line.split()[-1]) for line in self.said[self.out] if line.startswith("agent pid ")]

    def blame(self) -> dict[int, str]:
        """What each rank has said of the others, by the rank that says it. Every rank says one line at most."""
        found = [match for line in self.said[self.err] if (match := re.fullmatch(r"rank (\d+): (.*)", line))]
        assert len({match[1] for match in found}) == len(found), found
        return {int(match[1]): match[2] for match in found}

    def assert_all_blame(self, ranks: Iterable[int], pattern: str, alone: bool = True) -> None:
        """Each of these ranks, and no other, has said a line that begins with the pattern; `alone`: nothing else was said."""
        blame = self.blame()
        assert sorted(blame) == sorted(ranks), self.said[self.err]
        assert all(re.match(pattern, line) for line in blame.values()), blame
        assert not alone or len(self.said[self.err]) == len(blame), self.said[self.err]
