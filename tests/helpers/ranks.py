"""Ranks of `python -m pipeline` that start in a second: the client of rank_server.py.

ranks = rank_server.start(["pretrain", …], ranks=2, die=Death(rank=1, at="fsync", count=3))
assert ranks.wait() == [1, -signal.SIGKILL]
"""

import contextlib
import json
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypedDict, Unpack

import pytest

from tests.helpers.running import ROOT, worker_environment

SERVER = Path(__file__).parent / "rank_server.py"
# Drawing curves, and loading the model again, take longer than all else of a SMALL run.
WITHOUT_REPORT = ("pipeline.report.run_page:write_report", "pipeline.train.heldout_guesses:write_guesses")
ANSWER_S = 120.0  # the longest that the server may take to answer, its imports included


@dataclass(frozen=True)
class Death:
    """SIGKILL, or another signal, before the `count`-th call at a place (faults.PLACES, or MODULE:NAME), which each rank
    counts for itself.

    It takes the rank alone, or `everyone` started with it; with rank "all" the first to get so far takes everyone.
    """

    rank: int | Literal["all"]
    at: str
    count: int
    everyone: bool = False
    signal: int = signal.SIGKILL


@dataclass(frozen=True)
class Failure:
    """OSError instead of the `count`-th call at a place and of those after it: of so many `times`, or (None) for good."""

    rank: int | Literal["all"]
    at: str
    count: int = 1
    errno: str = "ENOSPC"
    times: int | None = None


class How(TypedDict, total=False):
    """How ranks are started.

    env: on top of running.worker_environment(). What is read when Python or a library starts (OMP_NUM_THREADS, DS_ACCELERATOR,
    PYTHONHASHSEED) is as it was when the server started, and the seed of str hashes every rank's alike.
    skip: functions (MODULE:NAME) that do nothing and return None, such as WITHOUT_REPORT.
    program: the module whose main(ARGV) gives the exit code; `pipeline.__main__`.
    """

    env: Mapping[str, str] | None
    die: Death | None
    fail: Failure | None
    skip: Sequence[str]
    program: str


class Ranks:
    """Processes that were started together."""

    def __init__(self, server: "RankServer", argv: list[str], pids: list[int], outputs: list[str]) -> None:
        self.argv, self.pids = argv, pids
        self.codes: list[int | None] = [None] * len(pids)
        self._server, self._outputs = server, outputs

    def wait(self, timeout_s: float = 120) -> list[int]:
        """All exit codes, in rank order, minus the signal for those killed. After the time it kills them: TimeoutError."""
        self._ask_for_codes(len(self.pids), timeout_s)
        missing = [rank for rank, code in enumerate(self.codes) if code is None]
        if missing:
            self.kill()
            self._ask_for_codes(len(self.pids), ANSWER_S)
            raise TimeoutError(f"ranks {missing} did not end in {timeout_s} s:\n{self.stdout}{self.stderr}")
        return [code for code in self.codes if code is not None]

    def wait_for_first(self, timeout_s: float = 120) -> list[int | None]:
        """Exit codes as soon as there is one; None for the ranks that still run."""
        self._ask_for_codes(1, timeout_s)
        if self.codes == [None] * len(self.pids):
            raise TimeoutError(f"no rank ended in {timeout_s} s:\n{self.stdout}{self.stderr}")
        return self.codes

    def kill(self, number: int = signal.SIGKILL, rank: int | None = None) -> None:
        """Send a signal to one rank or to all; those that have ended do not mind."""
        self._server.ask({"kill": self.pids if rank is None else [self.pids[rank]], "signal": int(number)})

    def completed(self) -> subprocess.CompletedProcess[str]:
        """After wait(), in the form that running.run_cli() gives and running.refused() takes: 0 or the first other code."""
        code = next((code for code in self.wait() if code), 0)
        return subprocess.CompletedProcess(self.argv, code, self.stdout, self.stderr)

    @property
    def stdout(self) -> str:
        """What all ranks have written so far, in rank order."""
        return "".join(self.output("stdout", rank) for rank in range(len(self.pids)))

    @property
    def stderr(self) -> str:
        """What all ranks have written so far, in rank order."""
        return "".join(self.output("stderr", rank) for rank in range(len(self.pids)))

    def output(self, kind: Literal["stdout", "stderr", "imports"], rank: int) -> str:
        """What one rank has written so far; `imports`: at its end, the modules that the server had not imported for it."""
        path = Path(f"{self._outputs[rank]}.{kind}")
        return path.read_text() if path.exists() else ""

    def _ask_for_codes(self, ended: int, timeout_s: float) -> None:
        answer = self._server.ask({"wait": self.pids, "ended": ended, "timeout_s": timeout_s}, timeout_s)
        self.codes = [answer["codes"].get(str(pid)) for pid in self.pids]


class RankServer:
    """Starts ranks. Made at once, ready some seconds later: the first start waits for that. `directory` gets the outputs.

    `cold`: it imports nothing beforehand; ready at once, but each rank takes its seconds.
    """

    def __init__(self, directory: Path, cold: bool = False) -> None:
        self.directory, self.started = directory, 0
        self._stderr = directory / "server.stderr"
        with self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, str(SERVER), *(["--cold"] if cold else [])],
                cwd=ROOT,
                env=worker_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C is for pytest, which ends the server
            )

    def __enter__(self) -> "RankServer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """The end of the server and of every rank that still runs."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            self.process.stdin.close()
        self.process.wait(ANSWER_S)
        self.process.stdout.close()

    def start(self, argv: Sequence[str | Path], ranks: int = 0, **how: Unpack[How]) -> Ranks:
        """`python -m pipeline ARGV` as `ranks` ranks; 0: as one process that no launcher started. %RANK% in a word is its
        number."""
        self.started += 1
        die, fail = how.get("die"), how.get("fail")
        outputs = [str(self.directory / f"start-{self.started}.rank-{rank}") for rank in range(max(1, ranks))]
        request: dict[str, Any] = {
            "program": how.get("program", "pipeline.__main__"),
            "argv": [str(word) for word in argv],
            "ranks": ranks,
            "env": dict(how.get("env") or {}),
            "outputs": outputs,
            "skip": list(how.get("skip", ())),
            "die": die and asdict(die) | {"everyone": die.everyone or die.rank == "all", "signal": int(die.signal)},
            "raise": fail and asdict(fail),
        }
        return Ranks(self, request["argv"], self.ask({"start": request})["pids"], outputs)

    def run(self, argv: Sequence[str | Path], ranks: int = 0, *, timeout_s: float = 120, **how: Unpack[How]) -> Ranks:
        """start() and wait()."""
        started = self.start(argv, ranks, **how)
        started.wait(timeout_s)
        return started

    def ask(self, request: Mapping[str, Any], timeout_s: float = 0) -> dict[str, Any]:
        """A request's answer, which may take so long; ValueError if it cannot be done, RuntimeError if the server is gone."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = b""
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
            if select.select([self.process.stdout], [], [], timeout_s + ANSWER_S)[0]:
                line = self.process.stdout.readline()
        except BrokenPipeError:
            pass
        if not line:
            self.process.kill()
            raise RuntimeError(f"the server of ranks ended with {self.process.wait()}:\n{self._stderr.read_text()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer


@pytest.fixture(scope="session")
def rank_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RankServer]:
    """One for all tests: it imports while the first of them makes its corpus."""
    with RankServer(tmp_path_factory.mktemp("ranks")) as server:
        yield server
