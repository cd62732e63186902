"""Signals that ask a run to save and end: of SLURM before the time limit, of a launcher, of a keyboard."""

import signal
from collections.abc import Mapping
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)  # NCCL may take USR1 for itself: USR2 does as well
EXIT_CODE = 75  # "temporary failure, try again" (sysexits.h): the run is saved, not finished


class StopRequest:
    """`reason` is None until this process is asked to stop. It only remembers: the training loop carries the wish to all ranks
    and ends after the same step on each. A second Ctrl-C ends the process at once."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def listen(self) -> None:
        """From now on the signals are requests. Main thread only."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def ask(self, reason: str) -> None:
        """Ask without a signal; the first reason is the one that is told."""
        self.reason = self.reason or reason

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.ask(f"signal {signal.Signals(number).name}")
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)


def is_restart(environment: Mapping[str, str]) -> bool:
    """Has SLURM requeued this job, or torchrun restarted its processes?"""
    return any(environment.get(name, "0") not in ("", "0") for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))
