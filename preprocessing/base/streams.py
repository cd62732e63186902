"""Standard output and error as people really have them: of any encoding, closed, full, or a pipe that nobody reads."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO, cast

STANDARD = ("stdin", "stdout", "stderr")


def settle() -> None:
    """Make the standard streams of this process usable: one that the caller has closed (>&-) leads nowhere, and what an
    encoding cannot hold is replaced ("?") where it would be an error."""
    for descriptor, name in enumerate(STANDARD):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the free number, which the next file that is opened would have taken
        if getattr(sys, name) is None:
            setattr(sys, name, _nowhere())
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


class Unheard:
    """A text stream in front of another one: what that does not take (a full disk, a pipe that was closed) is lost, and whoever
    writes goes on; the errors are put into `lost`. All else is the other one's."""

    def __init__(self, stream: TextIO, lost: list[OSError]) -> None:
        self._stream, self._lost = stream, lost

    def write(self, text: str) -> int:
        """All of it, or nothing."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """One after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """As far as it goes."""
        self._try(self._stream.flush)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            self._lost.append(error)
        except ValueError:  # it was closed
            pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def unheard(*names: str) -> Iterator[list[OSError]]:
    """Within it the streams of these names ("stdout", "stderr") raise no error; those of the first one are in the list that it
    gives. Afterwards they are the old streams again, or lead nowhere if they could not be flushed."""
    before = {name: getattr(sys, name) for name in names}
    lost: list[OSError] = []
    for name, stream in before.items():
        setattr(sys, name, cast(TextIO, Unheard(stream, lost if name == names[0] else [])))
    try:
        yield lost
    finally:
        for name, stream in before.items():
            setattr(sys, name, stream)
            error = flush_or_drop(name)
            if error is not None and name == names[0]:
                lost.append(error)


def flush_or_drop(name: str) -> OSError | None:
    """Flush a stream. If it fails, the stream leads nowhere from now on (the interpreter's own flush at its end must not fail)
    and the error is returned."""
    try:
        getattr(sys, name).flush()
    except OSError as error:
        drop(name)
        return OSError(error.errno, error.strerror, name)
    except ValueError:  # it was closed
        drop(name)
    return None


def drop(name: str) -> None:
    """From now on this stream leads nowhere."""
    setattr(sys, name, _nowhere())


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")
