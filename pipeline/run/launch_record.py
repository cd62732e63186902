"""Which launch began a run: so that --fresh begins anew once a launch, however often its processes are restarted.

SLURM and torchrun count the restarts after a failure, but when nodes join or leave, an elastic launcher starts the processes
again without counting. What lives on is the launcher's own process on at least one node (its agent): RUN/.launchers names those
that have taken part since the run was begun.
"""

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from preprocessing.base.json_file import read_object, write_object

LAUNCHERS = ".launchers"
ELASTIC = "TORCHELASTIC_RUN_ID"  # torchrun sets it


def launcher_of(environment: Mapping[str, str]) -> str | None:
    """This process' elastic launcher: host, pid, and when it started, for pids come again. None without such a launcher: then
    the parent may be a shell, in which one run is begun after the other.

    The launcher gives its workers the variable, and has none itself; a shell or a profiler around a worker, which is another
    one after each restart, has it, too."""
    if ELASTIC not in environment:
        return None
    pid = os.getppid()
    while _is_of_a_worker(pid):
        pid = int(_status(pid)[1])
    started = _status(pid)[19] if Path(f"/proc/{pid}/stat").exists() else environment[ELASTIC]
    return f"{socket.gethostname()} {pid} {started}"


def _is_of_a_worker(pid: int) -> bool:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # no such file system, or another user's process
        return False
    return any(variable.startswith(f"{ELASTIC}=".encode()) for variable in variables)


def _status(pid: int) -> list[str]:
    """What Linux says of a process behind its name: its state, its parent, …, and when it started (the 20th)."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()


def was_begun_by(run_dir: Path, launchers: Sequence[str | None]) -> bool:
    """Did one of these launchers begin the run that is there, or take part in it since?"""
    path = run_dir / LAUNCHERS
    return path.is_file() and not set(read_object(path)["launchers"]).isdisjoint(filter(None, launchers))


def record_launchers(run_dir: Path, launchers: Sequence[str | None]) -> None:
    """Add these to the run's; nothing for a run without an elastic launcher."""
    path, named = run_dir / LAUNCHERS, {launcher for launcher in launchers if launcher}
    if named:
        before = set(read_object(path)["launchers"]) if path.is_file() else set()
        write_object(path, {"launchers": sorted(before | named)})
