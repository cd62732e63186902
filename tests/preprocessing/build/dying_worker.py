"""Run by test_kills.py: `finalize` in a process that is killed at its N-th fsync, link or rename."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from preprocessing.__main__ import main

deadly, out = int(sys.argv[1]), Path(sys.argv[2])
calls = 0


def mortal(function: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        global calls
        calls += 1
        if calls == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    return call


for name in ("fsync", "link", "rename"):
    setattr(os, name, mortal(getattr(os, name)))
sys.exit(main(["finalize", "--out", str(out), "--workers", "1", "--json"]))
