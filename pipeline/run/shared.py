"""Is the run directory one directory? On nodes with disks of their own, the same path is another place on each, and a run that
trains to its end would leave a checkpoint in pieces on all of them."""

import contextlib
import secrets
import socket
import time
from pathlib import Path

from pipeline.distributed.ranks import Ranks

APPEARS_WITHIN_S = 30.0  # a network's file system may show a new name late
LOOK_EVERY_S = 0.2


def check_shared(run_dir: Path, ranks: Ranks, within_s: float = APPEARS_WITHIN_S) -> None:
    """ValueError, the same on every rank, unless each of them sees in RUN what rank 0 writes there now. A collective."""
    wrote: str = ranks.from_main(lambda: _leave(run_dir))
    name, host = wrote.split(" ")
    try:
        ranks.together(lambda: _look(run_dir, name, host, within_s))
    finally:
        if ranks.is_main:
            with contextlib.suppress(OSError):
                (run_dir / name).unlink()


def _leave(run_dir: Path) -> str:
    """A file whose name nobody has looked for before, so that no node remembers that it is not there; "name host"."""
    name = f".seen-by-all-{secrets.token_hex(8)}.writing"
    (run_dir / name).write_text(socket.gethostname(), encoding="utf-8")
    return f"{name} {socket.gethostname()}"


def _look(run_dir: Path, name: str, host: str, within_s: float) -> None:
    until_s = time.monotonic() + within_s
    while not (run_dir / name).exists():
        if time.monotonic() > until_s:
            raise ValueError(
                f"{run_dir} on host {socket.gethostname()} is not the directory of that name on host {host}, where rank 0 "
                "runs: it must lie on a file system that all nodes share"
            )
        time.sleep(LOOK_EVERY_S)
