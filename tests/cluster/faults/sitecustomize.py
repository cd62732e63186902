"""Python imports this at its start if its folder is on PYTHONPATH: training without the report at its end, which takes longer
than all else of a small run, and with a fault of rank 1.

FAULT=none    nothing
FAULT=start   it ends with 9 as soon as it starts, at every start of its job
FAULT=exit    at its job's first start it ends with 7, in the middle
FAULT=slow    at its job's first start it is slow from the middle on, until it is asked to stop: for what the test does to
              the job in the middle, however fast the machine is
"""

import ctypes
import os
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

MIDDLE = "step-00000020"
PAUSE_US = 200_000


def _go_slow() -> None:
    """A thread that sleeps without giving up the interpreter's lock stops all others, and takes no processor."""
    from pipeline.distributed.stop_signals import StopRequest

    asked, ask = threading.Event(), StopRequest.ask

    def ask_and_tell(self: StopRequest, reason: str) -> None:
        asked.set()
        ask(self, reason)

    StopRequest.ask = ask_and_tell  # type: ignore[method-assign]
    while not asked.is_set():
        ctypes.PyDLL(None).usleep(PAUSE_US)
        time.sleep(0.001)


def _in_the_middle(fault: str, run_dir: Path) -> None:
    while not (run_dir / "checkpoints" / MIDDLE).exists():
        time.sleep(0.01)
    if fault == "exit":
        os._exit(7)
    _go_slow()


if "pretrain" in sys.orig_argv:
    report = ModuleType("pipeline.report.run_page")
    report.write_report = lambda run_dir: run_dir / "report.html"  # type: ignore[attr-defined]
    sys.modules["pipeline.report.run_page"] = report
if "pretrain" in sys.orig_argv and os.environ.get("SLURM_PROCID") == "1":
    fault = os.environ["FAULT"]
    if fault == "start":
        os._exit(9)
    if fault != "none" and "SLURM_RESTART_COUNT" not in os.environ:
        run = Path(sys.orig_argv[sys.orig_argv.index("--run-dir") + 1])
        threading.Thread(target=_in_the_middle, args=(fault, run), daemon=True).start()
