"""Signals that ask a run to save and end (from SLURM, a launcher or the keyboard), and the record of how the run ended."""

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
    """Whether this process has been asked to stop: `reason` is None until then.

    It only records the request. The training loop tells all ranks of it, and each ends after the same step. A second Ctrl-C
    ends the process at once.
    """

    def __init__(self) -> None:
        self.reason: str | None = None

    def listen(self) -> None:
        """Take the signals of SIGNALS as requests from now on. Only the main thread may call this."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def ask(self, reason: str) -> None:
        """Request a stop without a signal; of several reasons the first one is kept."""
        self.reason = self.reason or reason

    def asked(self) -> bool:
        """Has this process been asked?"""
        return self.reason is not None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.ask(f"signal {signal.Signals(number).name}")
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)


def is_restart(environment: Mapping[str, str]) -> bool:
    """Has SLURM requeued this job, or torchrun restarted its processes?"""
    return any(environment.get(name, "0") not in ("", "0") for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))


@contextlib.contextmanager
def outcome_in(file: Path | None) -> Iterator[dict[str, str]]:
    """A context that writes how a run ended to `file` as JSON (None: nowhere), for the batch system that started it.

    It yields an empty dictionary for the caller to fill; at the end that is the file's contents. A ValueError or OSError that
    concerns all ranks makes it {"outcome": "refused", "reason": …}: the same command would end in the same way. If the
    dictionary is empty, or the process is killed or fails otherwise, there is no file: a batch system may try again."""
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
