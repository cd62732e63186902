"""Run by test_watchdog.py: ranks that all-reduce in a loop under a Watchdog, and go wrong as their plan says.

For each line {"ranks": n, "port": p, "out": path, "err": path, "torchrun": false, "plan": {…}} on standard input it forks a
launcher of n ranks: one like srun's, or torchrun's agent. So `import torch`, which takes seconds, is paid once for all.

A plan is {"timeout_s": 4} and what is to happen: see prepare(), run() and happen().
"""

import builtins
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from datetime import timedelta
from itertools import count
from typing import Any

os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # before torch is there: its warnings are C++ stack traces

import torch
import torch.distributed as dist
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from pipeline.distributed import watchdog
from pipeline.distributed.launch import World, world_from
from tests.helpers.connections import cut_connections

Plan = dict[str, Any]


def tell(line: str) -> None:
    """In one piece: all ranks share the pipe."""
    os.write(1, f"{line}\n".encode())


def prepare(plan: Plan, world: World) -> None:
    """{"machines": "aab"}: whose pids each rank can see; {"absent": rank} and {"start_s": 5}: how long the others wait."""
    if "machines" in plan:
        watchdog.machine = lambda: plan["machines"][world.rank]
    if world.rank == plan.get("absent"):
        tell(f"rank {world.rank} pid {os.getpid()} is not coming")
        threading.Event().wait()


def run(plan: Plan) -> None:
    """{"steps": 100, "leave_after_s": [0, 2]}; without, steps until a stop request or a failure. Every step is told, and takes
    {"naps": 1} twentieths of a second. {"mute": true}: nobody reads what this rank says of others."""
    world = world_from(os.environ)
    tell(f"rank {world.rank} pid {os.getpid()} starts")
    for asked in (signal.SIGTERM, signal.SIGINT):  # a program notes it, and goes on to the end of its step
        signal.signal(asked, lambda number, frame: None)
    dist.init_process_group("gloo", timeout=timedelta(minutes=10))
    dist.barrier()  # a start on a busy machine may take longer than a test's timeout
    prepare(plan, world)
    requests: list[str] = []
    say = (lambda text: threading.Event().wait()) if "mute" in plan else watchdog.say_on_stderr
    with watchdog.Watchdog(world, plan["timeout_s"], requests.append, say, plan.get("start_s", 120)) as watching:
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


def happen(plan: Plan, world: World, step: int, watching: watchdog.Watchdog) -> None:
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


def launch(ranks: int, port: int, out: str, err: str, torchrun: bool, plan: Plan) -> None:
    """Start the ranks, and tell of each how it ended, or of torchrun's agent. Returns in what it starts."""
    for path, number in ((out, 1), (err, 2)):
        descriptor = os.open(path, os.O_WRONLY)
        os.dup2(descriptor, number)
        os.close(descriptor)
    started: dict[int, str] = {}
    for rank in range(0 if torchrun else ranks):
        started[pid := os.fork()] = f"rank {rank}"
        if pid == 0:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            run(plan)
            return
    if torchrun:
        started[pid := os.fork()] = "agent"
        if pid == 0:
            be_torchrun(ranks, plan, run_id=str(port))
            return
    while started:
        pid, status = os.wait()
        tell(f"{started.pop(pid)} ended with {os.waitstatus_to_exitcode(status)}")
    os._exit(0)


def be_torchrun(ranks: int, plan: Plan, run_id: str) -> None:
    """`torchrun --standalone`, but that its agent forks the ranks, and logs nothing: torch's format of a line imports much."""
    tell(f"agent pid {os.getpid()}")
    logging.disable()
    meeting = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": run_id}
    config = LaunchConfig(1, 1, ranks, max_restarts=0, start_method="fork", **meeting)  # type: ignore[arg-type]
    elastic_launch(config, be_worker)(plan)


def be_worker(plan: Plan) -> None:
    """A rank under torchrun: without the agent's listening sockets, which it would not have if it had not been forked, and
    without a value for the agent at its end, which may be gone."""
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as inherited:
            if inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                os.close(number)
    run(plan)
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
    try:
        serve()
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # at once, as the command line does
    os._exit(0)
