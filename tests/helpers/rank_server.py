"""A process that imports everything once and forks the ranks that tests start: a start costs one second, not six.

Started by ranks.RankServer, it reads one JSON object a line on standard input and answers each with one line:

    {"start": {program, argv, ranks, env, outputs: [path…], skip, die, raise}}   {"pids": [rank 0's, rank 1's, …]}
    {"wait": [pid…], "ended": 1, "timeout_s": 9.5}   {"codes": {pid: exit code, or minus the signal}} of those that have ended
    {"kill": [pid…], "signal": 9}                    {"killed": [pid…]}, those that had not been waited for
    anything impossible                              {"error": "…"}

Ranks are real processes: they have the launcher's variables but no launcher, like srun's, and find each other over gloo.
Those started together are one process group. All of them end with this process, and it with its standard input.
Rank r writes outputs[r] + ".stdout" and ".stderr", and to ".imports" what it had to import itself.
"""

import ctypes
import errno
import gc
import importlib
import itertools
import json
import os
import random
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from pipeline.distributed.launch import LAUNCHER_VARIABLES
from tests.helpers.faults import arm, located

ROOT = Path(__file__).parent.parent.parent
PORTS = range(15000, 30000)  # below Linux's ephemeral ports: no connection is given one of them between choice and use
# Each server tries them in an order of its own, so that two servers do not choose the same one at the same time.
PR_SET_PDEATHSIG = 1

# What the verbs import, and what those modules import only when they are used.
MODULES = (
    "pipeline.__main__",
    "pipeline.train.start",
    "pipeline.train.evaluate",
    "pipeline.report.run_page",
    "pipeline.train.dry_run",
    "deepspeed.runtime.zero.stage_1_and_2",
    "deepspeed.runtime.zero.stage3",
    "deepspeed.module_inject.auto_ep_layer",
    "torch._dynamo",  # by the first fake tensors, of a report's prediction of memory
    "pandas",  # by pyarrow's first array
    "pyarrow.compute",
    "matplotlib.backends.backend_svg",
)


def import_everything() -> None:
    """In this thread alone: a fork copies no other, and what they hold locked stays locked."""
    os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # pyarrow's allocator would start one
    for module in MODULES:
        importlib.import_module(module)
    del os.environ["JE_ARROW_MALLOC_CONF"]
    gc.collect()
    gc.freeze()  # the ranks' collections need not look at, and thereby copy, what is here already


def check_single_thread() -> None:
    """RuntimeError with the threads' names if there is more than one."""
    tasks = [Path("/proc/self/task", task, "comm") for task in os.listdir("/proc/self/task")]
    if len(tasks) != 1:
        raise RuntimeError(f"cannot fork with {len(tasks)} threads: {', '.join(t.read_text().strip() for t in tasks)}")


def check_request(request: Mapping[str, Any]) -> None:
    """ValueError, here and not in a rank, for a program, a place or an error that there is not."""
    located(f"{request['program']}:main")
    for place in request["skip"]:
        located(place)
    for fault in (request["die"], request["raise"]):
        if fault is not None:
            located(fault["at"])
            if "errno" in fault and not hasattr(errno, fault["errno"]):
                raise ValueError(f"errno {fault['errno']!r}: expected a name like ENOSPC")


def free_port(ports: Iterator[int]) -> int:
    """The next one on which nothing listens."""
    for port in ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("the ports come round and round")


def become_rank(request: Mapping[str, Any], rank: int, port: int) -> None:
    """Everything about this process that a launcher would have set up."""
    import numpy

    for descriptor, kind in ((1, "stdout"), (2, "stderr")):
        file = os.open(f"{request['outputs'][rank]}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, descriptor)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    for name in LAUNCHER_VARIABLES:
        os.environ.pop(name, None)
    size = request["ranks"]
    if size:
        values = (rank, size, rank, "127.0.0.1", port)
        os.environ.update({name: str(value) for name, value in zip(LAUNCHER_VARIABLES, values, strict=True)})
    os.environ.update(request["env"])
    os.chdir(ROOT)
    sys.argv = [str(ROOT / f"{request['program'].replace('.', '/')}.py"), *words_of(request, rank)]
    numpy.random.seed()  # noqa: NPY002 (the legacy state alone is copied as it is: a process of its own would draw its own)
    for place in request["skip"]:
        for owner, name in located(place):
            setattr(owner, name, lambda *args, **kwargs: None)
    arm(request["die"], request["raise"], rank)


def words_of(request: Mapping[str, Any], rank: int) -> list[str]:
    """The command line of a rank: %RANK% in a word is its number, for files that are not the same on every node."""
    return [word.replace("%RANK%", str(rank)) for word in request["argv"]]


def run_rank(request: Mapping[str, Any], rank: int, port: int) -> NoReturn:
    """`python -m PROGRAM ARGV` from its first line to its last: main(ARGV) of that module."""
    code: Any = 1
    here = set(sys.modules)
    imports = os.open(f"{request['outputs'][rank]}.imports", os.O_WRONLY | os.O_CREAT, 0o644)  # before any call counts
    try:
        become_rank(request, rank, port)
        code = importlib.import_module(request["program"]).main(words_of(request, rank))
    except SystemExit as end:
        code = end.code
        if not isinstance(code, int):
            if code is not None:
                print(code, file=sys.stderr)
            code = int(code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
            os.write(imports, "\n".join(sorted(set(sys.modules) - here)).encode())
        finally:
            os._exit(code)


class Server:
    """The processes that live, and the conversation about them."""

    def __init__(self, requests: int, answers: int) -> None:
        self.requests, self.answers = requests, answers
        self.reader: IO[bytes] = os.fdopen(requests, "rb", buffering=0, closefd=False)
        self.living: dict[int, int] = {}  # pid: a descriptor that is readable when it has ended
        self.codes: dict[int, int] = {}
        self.ports = itertools.cycle(random.Random(os.getpid()).sample(PORTS, len(PORTS)))

    def serve(self) -> None:
        """Until nobody asks any more."""
        while line := self.reader.readline():
            request = json.loads(line)
            try:
                answer = self.answer(request)
            except ValueError as error:  # anything else is a bug and ends this process and its ranks
                answer = {"error": str(error)}
            os.write(self.answers, json.dumps(answer).encode() + b"\n")

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """ValueError if it cannot be done."""
        if "start" in request:
            return {"pids": self.start(request["start"])}
        if "wait" in request:
            return {"codes": self.wait(request["wait"], request["ended"], request["timeout_s"])}
        return {"killed": self.kill(request["kill"], request["signal"])}

    def start(self, request: Mapping[str, Any]) -> list[int]:
        """Fork the ranks; none runs before all are there and in one group, so that one can kill all at any moment."""
        check_request(request)
        port = free_port(self.ports)
        check_single_thread()
        sys.stdout.flush()
        sys.stderr.flush()
        gate, opener = os.pipe()
        pids: list[int] = []
        for rank in range(max(1, request["ranks"])):
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                self.leave(parent, opener)
                os.read(gate, 1)
                os.close(gate)
                run_rank(request, rank, port)
            os.setpgid(pid, pids[0] if pids else pid)
            pids.append(pid)
            self.living[pid] = os.pidfd_open(pid)
        os.close(gate)
        os.close(opener)
        return pids

    def leave(self, parent: int, opener: int) -> None:
        """In a rank: die with the server, and hold nothing open that the server or its client wait to see closed."""
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it was gone before
            os._exit(1)
        for descriptor in (self.requests, self.answers, opener, *self.living.values()):
            os.close(descriptor)

    def wait(self, pids: Sequence[int], ended: int, timeout_s: float) -> dict[int, int]:
        """Until so many of them have ended, the time is up, or the client has something else to say or is gone."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            for pid in [pid for pid in pids if pid in self.living]:
                reaped, status = os.waitpid(pid, os.WNOHANG)
                if reaped:
                    os.close(self.living.pop(pid))
                    self.codes[pid] = os.waitstatus_to_exitcode(status)
            codes = {pid: self.codes[pid] for pid in pids if pid in self.codes}
            left_s = deadline_s - time.monotonic()
            if len(codes) >= ended or left_s <= 0:
                return codes
            descriptors = [self.living[pid] for pid in pids if pid in self.living]
            ready, _, _ = select.select([self.requests, *descriptors], [], [], left_s)
            if self.requests in ready:
                return codes

    def kill(self, pids: Sequence[int], number: int) -> list[int]:
        """Only what has not been waited for: another process may have an old number."""
        killed = [pid for pid in pids if pid in self.living]
        for pid in killed:
            os.kill(pid, number)
        return killed


def main() -> None:
    """Standard input and output are put aside for the conversation: imports and ranks must not touch them.

    With --cold nothing is imported beforehand: ready at once, for tests that only start and end ranks.
    """
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.path[0] = str(ROOT)  # as `python -m` has it
    if "--cold" not in sys.argv:
        import_everything()
    server = Server(requests, answers)
    try:
        server.serve()
    finally:
        server.kill(list(server.living), signal.SIGKILL)


if __name__ == "__main__":
    main()
