"""A rank that dies or hangs ends the run: soon, with a line of each survivor that names it, and with no process left over.

The scenarios are real processes and mostly wait, so they run side by side; a test is the outcome of one.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.running import ROOT, worker_environment
from tests.pipeline.distributed.watched_job import SOON_S, START_S, Job

WORKER = Path(__file__).parent / "watchdog_worker.py"
HOST = socket.gethostname()
NEVER_S = 600  # as a timeout: what ends before has been found in another way
SURVIVED, KILLED = 1, -signal.SIGKILL  # exit codes: of those who survive, of the victims


Launch = Callable[..., Job]
SCENARIOS: dict[str, Callable[[Launch], None]] = {}


def scenario(function: Callable[..., None], case: str = "", **arguments: Any) -> Callable[..., None]:
    """Adds it to those that are run."""
    SCENARIOS[f"{function.__name__} {case}".strip()] = partial(function, **arguments)
    return function


def kill(job: Job, *ranks: int, number: signal.Signals = signal.SIGKILL) -> None:
    for rank in ranks:
        os.kill(job.pids()[rank], number)


def who(job: Job, *ranks: int) -> str:
    """A pattern of how a line names them."""
    named = ", ".join(f"{rank} (host {HOST}, pid {job.pids()[rank]})" for rank in ranks)
    return re.escape(f"rank{'s' if ranks[1:] else ''} {named}")


def others(ranks: int, *victims: int) -> list[int]:
    """Who survives."""
    return [rank for rank in range(ranks) if rank not in victims]


def under_torchrun(launch: Launch, ranks: int, words: str, **plan: Any) -> Job:
    job = launch(ranks, torchrun=True, timeout_s=NEVER_S, **plan)
    job.until_said(words, ranks)
    return job


@scenario
def killed_under_torchrun(launch: Launch) -> None:
    """Its agent sends SIGTERM to the survivors, and SIGKILL 30 s later. Rank 2 sees neither the victim nor an error, but finds
    in the store what another rank has found."""
    job = under_torchrun(launch, 3, " blocks", machines="aab", blocks=[0, 1, 2])
    kill(job, 1)
    said_s = job.until(lambda: bool(job.blame()), SOON_S)
    print(f"under torchrun: said after {said_s:.1f} s, ended {job.end():.1f} s later")
    job.assert_all_blame([0, 2], f"lost {who(job, 1)}", alone=False)  # the agent has its own words
    assert "agent ended with 1" in job.said[job.out]


@scenario
def torchrun_killed(launch: Launch) -> None:
    """With it goes the store; the ranks are asked to stop, and do it by themselves, in the seconds that a step takes."""
    job = under_torchrun(launch, 2, " step 0", naps=80)
    (agent,) = job.agent()
    os.kill(agent, signal.SIGKILL)
    print(f"torchrun killed: {job.end():.1f} s")
    stops = [line for line in job.said[job.out] if " stops: " in line]
    assert len(stops) == 2
    assert any(line.endswith("['the launcher is gone']") for line in stops)
    assert job.said[job.err] == []


def goes_well(launch: Launch, timeout_s: float = 5, steps: int = 120, pause_s: float = 0, **plan: Any) -> None:
    """Longer than the timeout."""
    job = launch(3, timeout_s=timeout_s, steps=steps, **plan)
    job.until_said(" works" if pause_s else " step 0", 3)
    if pause_s:
        kill(job, 0, 1, 2, number=signal.SIGSTOP)
        threading.Event().wait(pause_s)
        kill(job, 0, 1, 2, number=signal.SIGCONT)
    job.until_said(f" step {steps - 1}", 3)
    job.end(START_S)
    assert job.said[job.err] == []
    assert job.exit_codes() == dict.fromkeys(range(3), 0)


scenario(goes_well, "though the whole job was suspended", timeout_s=6, pause_s=8, steps=2, naps=70)
scenario(goes_well, "though rank 0 is long done when the others end", leave_after_s=[0, 3, 1.5])
scenario(goes_well, "though rank 0 ends last", leave_after_s=[3, 0, 1.5])
scenario(goes_well, "though the others wait for rank 1, which gets on", busy=[1, 12])
scenario(goes_well, "though a connection to the store broke", timeout_s=NEVER_S, cut=[1])


def killed(launch: Launch, victims: list[int], machines: str, **plan: Any) -> None:
    """Rank 0 holds the store. On one machine the processes see each other; else a collective's error and no sign of life."""
    ranks = len(machines)
    job = launch(ranks, timeout_s=NEVER_S, machines=machines, **plan)
    job.until_said(" blocks" if plan else " step 3", ranks)
    kill(job, *victims)
    said_s = job.until(lambda: bool(job.said[job.err]), SOON_S)
    print(f"killed {victims} on {machines} {plan}: said after {said_s:.1f} s, ended {job.end():.1f} s later")
    job.assert_all_blame(others(ranks, *victims), f"lost {who(job, *([0] if 0 in victims else victims))}")
    assert job.exit_codes() == {rank: KILLED if rank in victims else SURVIVED for rank in range(ranks)}


scenario(killed, "rank 1", victims=[1], machines="aaa")
scenario(killed, "rank 1 of three machines", victims=[1], machines="abc")
scenario(killed, "rank 1 while all main threads hang, as in NCCL", victims=[1], machines="aab", blocks=[0, 1, 2])
scenario(killed, "rank 0", victims=[0], machines="aaa")
scenario(killed, "rank 0 of three machines", victims=[0], machines="abc")
scenario(killed, "two", victims=[1, 2], machines="aaaa")
scenario(killed, "two of four machines", victims=[1, 2], machines="abcd")
scenario(killed, "rank 0 and rank 1", victims=[0, 1], machines="aaa")


def suspended(launch: Launch, victims: list[int], words: str) -> None:
    """The sockets stay open: nothing tells, and a store that is suspended, too, answers nobody. As a node without power."""
    job = launch(4, timeout_s=3, machines="aabb")
    job.until_said(" step 3", 4)
    kill(job, *victims, number=signal.SIGSTOP)
    took_s = job.until(lambda: len(job.exit_codes()) == 4 - len(victims), 3 + SOON_S)
    print(f"suspended {victims}: survivors ended after {took_s:.1f} s (timeout 3 s)")
    kill(job, *victims)
    job.end()
    job.assert_all_blame(others(4, *victims), f"lost {who(job, victims[0])}{words}")
    assert job.exit_codes() == {rank: KILLED if rank in victims else SURVIVED for rank in range(4)}


SILENT = ": the rendezvous store in its process does not answer; rank . is at "
scenario(suspended, "rank 1", victims=[1], words=", last seen at ")
scenario(suspended, "rank 0", victims=[0], words=SILENT)
scenario(suspended, "first machine", victims=[0, 1], words=SILENT)


def hangs(launch: Launch, ranks: int, blocks: list[int], words: str) -> None:
    """All threads live, and the beats tell who waits for whom."""
    job = launch(ranks, timeout_s=3, blocks=blocks)
    job.until_said(" blocks", len(blocks))
    print(f"hangs {blocks} of {ranks}: {job.end(3 + SOON_S):.1f} s (timeout 3 s)")
    job.assert_all_blame(range(ranks), f"stuck: {words.format(who=who(job, *blocks))}$")
    assert job.exit_codes() == dict.fromkeys(range(ranks), SURVIVED)


scenario(hangs, "rank 1", ranks=3, blocks=[1], words="{who}, not beyond step 2 for [345] s")
scenario(hangs, "all", ranks=3, blocks=[0, 1, 2], words="all 3 ranks wait at step 2 for [345] s: .* does not answer")
scenario(hangs, "alone", ranks=1, blocks=[0], words="{who}, not beyond step 2 for [345] s")


def raises(launch: Launch, error: str, words: str) -> None:
    """An error of one rank alone has that rank's traceback, and ends the others."""
    job = launch(3, timeout_s=NEVER_S, raises=[1, error])
    job.until_said(" raises", 1)
    print(f"{error}: {job.end():.1f} s")
    assert any(line.endswith(f"{error}: the worker's own") for line in job.said[job.err])
    job.assert_all_blame([0, 2], words.format(who=who(job, 1)), alone=False)  # the traceback is rank 1's
    assert job.exit_codes() == dict.fromkeys(range(3), 1)


scenario(raises, "RuntimeError", error="RuntimeError", words="lost {who}, last seen at ")
scenario(raises, "ValueError", error="ValueError", words="{who} ended at step 2, and the others wait")


@scenario
def absent_at_the_start(launch: Launch) -> None:
    job = launch(3, timeout_s=NEVER_S, absent=1, start_s=5)
    job.until_said(" is not coming", 1)
    job.until(lambda: len(job.exit_codes()) == 2, SOON_S)
    kill(job, 1)
    job.end()
    absent = "of 3 ranks 1 did not come within 5 s"
    assert sum(line.endswith(f".RankError: {absent}") for line in job.said[job.err]) == 1  # the one that is printed
    others = (f"ValueError: {absent}", "ValueError: rank 0 ended while this rank waited for all 3 ranks")
    assert sum(line.endswith(others) for line in job.said[job.err]) == 1


@scenario
def nobody_reads_standard_error(launch: Launch) -> None:
    job = launch(1, timeout_s=1, blocks=[0], mute=True)
    job.until_said(" blocks", 1)
    job.end()
    assert job.exit_codes() == {0: SURVIVED}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[dict[str, Future[None]]]:
    """Of all scenarios that are asked for, by name."""
    command, wanted = [sys.executable, str(WORKER)], {item.name for item in request.session.items}
    jobs, starting, directory = list[Job](), threading.Lock(), tmp_path_factory.mktemp("jobs")
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, cwd=ROOT, env=worker_environment()) as nursery:

        def launch(ranks: int, torchrun: bool = False, **plan: Any) -> Job:
            """Ranks of a launcher like srun's, or under torchrun's agent."""
            with starting:
                jobs.append(job := Job(directory / str(len(jobs))))
                order = {"ranks": ranks, "port": job.port, "out": str(job.out), "err": str(job.err), "torchrun": torchrun}
                print(json.dumps({**order, "plan": plan}), file=nursery.stdin, flush=True)
            return job

        with ThreadPoolExecutor(max_workers=12) as pool:
            yield {name: pool.submit(run, launch) for name, run in SCENARIOS.items() if f"test_scenario[{name}]" in wanted}
        for job in jobs:
            job.clean_up()


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(outcomes: dict[str, Future[None]], name: str) -> None:
    outcomes[name].result()
