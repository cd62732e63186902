"""Signals that ask a run to save and end (of SLURM before the time limit, of a launcher, of a keyboard), and how it ended."""

import contextlib
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

from preprocessing.base.command_line import RankError, one_line
from preprocessing.base.json_file import write_object

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


@contextlib.contextmanager
def outcome_in(file: Path | None) -> Iterator[dict[str, str]]:
    """Write the dictionary that is given, which the caller fills, to `file` at the end (None: nowhere). A ValueError or OSError
    that concerns all ranks is the outcome "refused", with its reason: the same command would end so again. Any other end, a
    kill among them, leaves no file: a batch system may try again."""
    outcome: dict[str, str] = {}
    try:
        yield outcome
    except RankError:
        raise
    except (ValueError, OSError) as error:
        outcome.update(outcome="refused", reason=one_line(error))
        raise
    finally:
        if file is not None and outcome:
            with contextlib.suppress(OSError):  # a full disk must not hide how it ended; without the file it is tried again
                write_object(file, outcome)
