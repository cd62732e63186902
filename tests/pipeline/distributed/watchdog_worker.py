"""Run by test_watch.py: ranks that all-reduce in a loop under a Watch, and go wrong as their plan says.

    python watch_worker.py PLAN     one rank of a launcher that has set the environment
    python watch_worker.py          for each line {"ranks": n, "port": p, "out": path, "err": path, "plan": {…}} on standard
                                    input a launcher of n ranks as srun is one: `import torch` takes seconds, once for all

A plan is {"timeout_s": 4} and what is to happen: see prepare(), run() and happen().
"""

import builtins
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from datetime import timedelta
from itertools import count
from typing import Any

os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # before torch is there: its warnings are C++ stack traces

import torch
import torch.distributed as dist

from pipeline.distributed import watchdog as watch
from pipeline.distributed.launch import World, world_from

Plan = dict[str, Any]


def tell(line: str) -> None:
    """In one piece: all ranks share the pipe."""
    os.write(1, f"{line}\n".encode())


def prepare(plan: Plan, world: World) -> None:
    """{"machines": ["a", "a", "b"]}: whose pids each rank can see; {"down": "a"}: nobody answers there; {"absent": rank}
    and {"start_s": 5}: how long the others wait."""
    if "machines" in plan:
        watch.machine = lambda: plan["machines"][world.rank]
    if "down" in plan:
        watch.Watch._holder_is_up = lambda self: False  # type: ignore[method-assign]
    if world.rank == plan.get("absent"):
        tell(f"rank {world.rank} pid {os.getpid()} is not coming")
        threading.Event().wait()


def run(plan: Plan) -> None:
    """{"steps": 100, "leave_after_s": [0, 2]}; without, steps until a stop request or a failure. Every step is told, and takes
    {"naps": 1} twentieths of a second. {"mute": true}: nobody reads what this rank says of others."""
    world = world_from(os.environ)
    tell(f"rank {world.rank} pid {os.getpid()} starts")
    signal.signal(signal.SIGTERM, lambda number, frame: None)  # a program notes it, and goes on to the end of its step
    dist.init_process_group("gloo", timeout=timedelta(minutes=10))
    dist.barrier()  # a start on a busy machine may take longer than a test's timeout
    prepare(plan, world)
    requests: list[str] = []
    say = (lambda text: threading.Event().wait()) if "mute" in plan else watch.say_on_stderr
    with watch.Watch(world, plan["timeout_s"], requests.append, say, plan.get("start_s", 120)) as watching:
        for step in range(plan["steps"]) if "steps" in plan else count():
            watching.beat(f"step {step}")
            happen(plan, world, step, watching)
            watching.beat(f"the reduction of step {step}")
            stop = torch.tensor(float(bool(requests)))
            dist.all_reduce(stop, dist.ReduceOp.MAX)
            tell(f"rank {world.rank} pid {os.getpid()} step {step}")
            if stop:
                tell(f"rank {world.rank} pid {os.getpid()} stops: {requests}")
                break
            for nap in range(plan.get("naps", 1)):
                time.sleep(0.05)  # the work, of which none is done while the process is suspended
                if nap == 20:
                    tell(f"rank {world.rank} pid {os.getpid()} works")
        threading.Event().wait(plan.get("leave_after_s", [0] * world.size)[world.rank])


def happen(plan: Plan, world: World, step: int, watching: watch.Watch) -> None:
    """In step 2: {"blocks": [1]}: the main thread of rank 1 waits for good. {"raises": [1, "ValueError"]}. {"busy": [1, 12]}:
    it works half a second and beats, 12 times. {"cut": [1]}: it loses its connections to the store, which lives."""
    if step != 2:
        return
    rank, mine = world.rank, f"rank {world.rank} pid {os.getpid()}"
    if rank in plan.get("blocks", []):
        tell(f"{mine} blocks")
        threading.Event().wait()
    if rank in plan.get("raises", []):
        tell(f"{mine} raises")
        raise getattr(builtins, plan["raises"][1])("the worker's own")
    if rank in plan.get("busy", [])[:1]:
        for _ in range(plan["busy"][1]):
            time.sleep(0.5)  # the work
            watching.beat("its own work", counted=False)
    if rank in plan.get("cut", []):
        cut_connections(world.master_port)


def cut_connections(port: int) -> None:
    """Of this process, to the port."""
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as connection:
            if connection.getpeername()[1] == port:
                connection.shutdown(socket.SHUT_RDWR)


def launch(ranks: int, port: int, out: str, err: str, plan: Plan) -> None:
    """Start the ranks, and tell of each how it ended. Returns in the ranks alone."""
    for path, number in ((out, 1), (err, 2)):
        descriptor = os.open(path, os.O_WRONLY)
        os.dup2(descriptor, number)
        os.close(descriptor)
    started = {}
    for rank in range(ranks):
        started[pid := os.fork()] = rank
        if pid == 0:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            run(plan)
            return
    while started:
        pid, status = os.wait()
        tell(f"rank {started.pop(pid)} ended with {os.waitstatus_to_exitcode(status)}")
    os._exit(0)


def serve() -> None:
    """A launcher of its own for each line."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how the launchers end
    for line in sys.stdin:
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            launch(**json.loads(line))
            return
    os._exit(0)


if __name__ == "__main__":
    run(json.loads(sys.argv[1])) if sys.argv[1:] else serve()
