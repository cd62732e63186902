"""Is this node fit? One process on each node of a job, before its ranks start: disk, corpus, memory,
GPUs, network, clock.

Each prints one line, `node NAME: fit …` or `node NAME: UNFIT: …`; `--verdict` reads them all and names the nodes to exclude.
A node that says nothing (it hangs, or nothing can be started there) is unfit. The first node listens where the ranks will
meet; the others call it and compare clocks. If all of two or more others complain of the first, it is the first that is unfit.
"""

import argparse
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.distributed.launch import port_of_job
from preprocessing.base import command_line as cli
from preprocessing.corpus.manifest import MANIFEST_FILE

CLOCK_S = 5.0  # of difference between two nodes: above it logs, leases and certificates go wrong
TEMPORARY_BYTES = 100_000_000
_LINE = re.compile(r"node (\S+): (fit|UNFIT: .*)")
OF_FIRST = "the first node"


def disk(folder: Path, wanted_bytes: int) -> str | None:
    """What is wrong with writing checkpoints beside `folder`, or temporary files."""
    probe = folder / f".node-check-{socket.gethostname()}-{os.getpid()}"
    data = os.urandom(1 << 20)
    try:
        try:
            with probe.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if probe.read_bytes() != data:
                return f"disk: {folder} gives back other bytes than were written"
        finally:
            probe.unlink(missing_ok=True)
        for place, least in ((folder, wanted_bytes), (Path(tempfile.gettempdir()), TEMPORARY_BYTES)):
            free = shutil.disk_usage(place).free
            if free < least:
                return f"disk: {place} has {_gb(free)} free, {_gb(least)} are needed"
    except OSError as error:
        return f"disk: {cli.one_line(error)}"
    return None


def corpus(data: Path) -> str | None:
    """What is wrong with reading the corpus."""
    try:
        (data / MANIFEST_FILE).read_bytes()
    except OSError as error:
        return f"corpus: {cli.one_line(error)}"
    return None


def memory(wanted_bytes: int) -> str | None:
    """What is wrong with the host's memory."""
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    available = int(re.findall(r"MemAvailable:\s+(\d+) kB", text)[0]) * 1024
    return f"memory: {_gb(available)} available, {_gb(wanted_bytes)} are needed" if available < wanted_bytes else None


def gpus(wanted: int) -> str | None:
    """What is wrong with the GPUs: too few, or one that does not multiply."""
    if wanted == 0:
        return None
    import torch

    found = torch.cuda.device_count()
    if found < wanted:
        return f"GPU: {found} visible, {wanted} are needed"
    for index in range(found):
        try:
            ones = torch.ones(512, 512, device=torch.device("cuda", index))
            total = float((ones @ ones).sum())
        except RuntimeError as error:
            return f"GPU {index}: {cli.one_line(error)}"
        if total != 512.0**3:
            return f"GPU {index}: a product of ones sums to {total:g}, not to {512.0**3:g}"
    return None


def answer_others(port: int, others: int, wait_s: float) -> str | None:
    """On the first node: tell each of the others the time. What is wrong here; that some did not come, they say."""
    until_s, called = time.monotonic() + wait_s, 0
    try:
        with socket.create_server(("", port)) as listener:
            while called < others and (left_s := until_s - time.monotonic()) > 0:
                listener.settimeout(left_s)
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(json.dumps(time.time()).encode())
                called += 1
    except TimeoutError:
        pass
    except OSError as error:
        return f"network: port {port}: {cli.one_line(error)}"
    return None


def call_first(host: str, port: int, wait_s: float) -> str | None:
    """On the others: reach the first node and compare clocks."""
    until_s, problem = time.monotonic() + wait_s, "no answer"
    while time.monotonic() < until_s:
        try:
            began = time.time()
            with socket.create_connection((host, port), timeout=max(0.1, until_s - time.monotonic())) as connection:
                there = float(json.loads(connection.makefile().read()))
            difference_s = there - (began + time.time()) / 2
            if abs(difference_s) <= CLOCK_S:
                return None
            return f"clock: {OF_FIRST}, {host}, is {difference_s:+.1f} s away; {CLOCK_S:g} s are allowed"
        except (OSError, ValueError) as error:
            problem = cli.one_line(error)
            time.sleep(0.1)  # it may not be listening yet
    return f"network: {OF_FIRST}, {host}:{port}, could not be reached in {wait_s:g} s ({problem})"


def unfit_nodes(lines: Sequence[str], nodes: Sequence[str]) -> list[str]:
    """Of a job's `nodes`, the first one first, those to exclude, after what their checks said."""
    said = {found[1]: found[2] for line in lines if (found := _LINE.fullmatch(line.strip()))}
    unfit = [node for node in nodes if said.get(node) != "fit"]
    others = nodes[1:]
    blames_first = len(others) >= 2 and all(OF_FIRST in said.get(node, "") for node in others)
    return [nodes[0]] if blames_first else unfit


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _check(args: argparse.Namespace) -> int:
    nodes, name = os.environ["PIPELINE_HOSTS"].split(), os.environ["SLURMD_NODENAME"]
    port = port_of_job(int(os.environ["SLURM_JOB_ID"]))
    # The network first and by itself: a slow disk of the first node is not the others' problem.
    others = len(nodes) - 1
    network = answer_others(port, others, args.wait_s) if name == nodes[0] else call_first(nodes[0], port, args.wait_s)
    problems = [network, disk(args.folder, args.disk_bytes), corpus(args.data), memory(args.memory_bytes), gpus(args.gpus)]
    found = "; ".join(problem for problem in problems if problem)
    print(f"node {name}: {'UNFIT: ' + found if found else 'fit'}", flush=True)
    return 0


def _verdict(args: argparse.Namespace) -> int:
    print(",".join(unfit_nodes(sys.stdin.read().splitlines(), args.verdict.split())))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of job.sh's calls; returns the exit code."""
    parser = cli.Parser(prog="python -m slurm.node_check", description="Called by slurm/job.sh on each node of a job.")
    parser.add_argument("--verdict", metavar="NODES", help="read the checks' lines, print the unfit ones of these nodes")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the run writes")
    parser.add_argument("--data", type=Path, default=Path(), help="the corpus")
    parser.add_argument("--disk-bytes", type=int, default=0)
    parser.add_argument("--memory-bytes", type=int, default=0)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--wait-s", type=float, default=20.0, help="for the other nodes")
    parser.set_defaults(run=lambda args: _check(args) if args.verdict is None else _verdict(args))
    return cli.run(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
