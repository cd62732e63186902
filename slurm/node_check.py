"""Is this node fit? One process on each node of a job, before its ranks start: network, clock, disk, corpus, memory, GPUs,
shared directory.

Each prints one line, `node NAME: fit …` or `node NAME: UNFIT: …`; `--verdict` reads them all and names the nodes to exclude.
A node that says nothing (it hangs, or nothing can be started there) is unfit. The first node listens where the ranks will
meet; the others call it and compare clocks. If all of two or more others complain of the first, it is the first that is unfit.
job.sh, on the first node, has just made a file under a random name beside the run: who does not see it has another directory
under that path. If nobody else sees it, it is the path that is wrong, not the nodes.
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
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.distributed.launch import port_of_job
from preprocessing.base import command_line as cli
from preprocessing.corpus.manifest import MANIFEST_FILE

CLOCK_S = 5.0  # of difference between two nodes: above it logs, leases and certificates go wrong
TEMPORARY_BYTES = 100_000_000
_LINE = re.compile(r"node (\S+): (fit|UNFIT: .*)")
OF_FIRST = "the first node"
NOT_SHARED = "must be on a file system that all nodes share"
SEEN_S = 5.0  # in which a file that one node has made is seen by the others: a network's file system may take a moment


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


def shared(token: Path, maker: str) -> str | None:
    """What is wrong with the directory of `token`, a file that the node `maker` has made."""
    until_s = time.monotonic() + SEEN_S
    while not token.exists():
        if time.monotonic() > until_s:
            return f"directory: {token.parent} is not the directory that {maker} sees: --run {NOT_SHARED}"
        time.sleep(0.1)
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


def said_of_nodes(lines: Sequence[str], nodes: Sequence[str]) -> dict[str, str]:
    """What the check of each node said, in the order of `nodes`; "said nothing" if there is no line of it."""
    said = {found[1]: found[2] for line in lines if (found := _LINE.fullmatch(line.strip()))}
    return {node: said.get(node, "said nothing") for node in nodes}


def unfit_nodes(said: Mapping[str, str]) -> list[str]:
    """Of a job's nodes, the first one first, those to exclude."""
    first, *others = said
    blames_first = len(others) >= 2 and all(OF_FIRST in said[node] for node in others)
    return [first] if blames_first else [node for node in said if said[node] != "fit"]


def seen_by_nobody(said: Mapping[str, str]) -> str:
    """That no other node has the first one's directory, if it is so: excluding nodes does not help then."""
    first, *others = said
    blind = [node for node in others if NOT_SHARED in said[node]]
    if not blind or any(said[node] != "said nothing" for node in others if node not in blind):
        return ""
    where = re.findall(r"directory: (.*) is not the directory that", said[blind[0]])[0]
    return f"no other node sees what {first} has just written to {where}: --run {NOT_SHARED}"


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _check(args: argparse.Namespace) -> int:
    nodes, name = os.environ["PIPELINE_HOSTS"].split(), os.environ["SLURMD_NODENAME"]
    port = port_of_job(int(os.environ["SLURM_JOB_ID"]))
    # The network first and by itself: a slow disk of the first node is not the others' problem.
    others = len(nodes) - 1
    network = answer_others(port, others, args.wait_s) if name == nodes[0] else call_first(nodes[0], port, args.wait_s)
    problems = [network, disk(args.folder, args.disk_bytes), corpus(args.data), memory(args.memory_bytes), gpus(args.gpus)]
    problems.append(shared(args.token, nodes[0]) if args.token else None)
    found = "; ".join(problem for problem in problems if problem)
    print(f"node {name}: {'UNFIT: ' + found if found else 'fit'}", flush=True)
    return 0


def _verdict(args: argparse.Namespace) -> int:
    said = said_of_nodes(sys.stdin.read().splitlines(), args.verdict.split())
    unfit = unfit_nodes(said)
    print(",".join(unfit))
    complaints = {node: text.removeprefix("UNFIT: ") for node, text in said.items() if text != "fit"}
    print("; ".join(f"{node}: {text}" for node, text in complaints.items()))
    print(seen_by_nobody(said))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of job.sh's calls; returns the exit code."""
    parser = cli.Parser(prog="python -m slurm.node_check", description="Called by slurm/job.sh on each node of a job.")
    parser.add_argument(
        "--verdict",
        metavar="NODES",
        help="read the checks' lines, print which of these nodes to exclude, what was said of them, "
        "and whether nobody sees the first one's directory: a line each",
    )
    parser.add_argument("--folder", type=Path, default=Path(), help="where the run writes")
    parser.add_argument("--token", type=Path, help="a file there that the first node has just made")
    parser.add_argument("--data", type=Path, default=Path(), help="the corpus")
    parser.add_argument("--disk-bytes", type=int, default=0)
    parser.add_argument("--memory-bytes", type=int, default=0)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--wait-s", type=float, default=20.0, help="for the other nodes")
    parser.set_defaults(run=lambda args: _check(args) if args.verdict is None else _verdict(args))
    return cli.run(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
