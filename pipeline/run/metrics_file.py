"""RUN/metrics.jsonl, one JSON record a line. Writing loses no record while the disk is full or away, and reading copes with a
write that was interrupted anywhere."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"
KINDS = ("train", "eval")


class MetricsFile:
    """metrics.jsonl for appending. Lines that cannot be written wait in memory, in order, and are written first the next time.

    `say` gets a line when an outage of the disk begins, when it is over, and if the file has become shorter than was written.
    `position`: what position() was at the checkpoint that this run is resumed from; a shorter file is an alarm.
    Raises OSError if the file cannot be opened at the start.
    """

    def __init__(self, path: Path, say: Callable[[str], None], position: int | None = None) -> None:
        drop_torn_line(path)
        with path.open("ab"):  # made here if it is not there, and never again: see _write
            pass
        self._path, self._say = path, say
        self._bytes = path.stat().st_size
        # A line is about 650 bytes, and 40 more as an object: a day's outage at a record a second is 60 MB. A bound could
        # only drop lines, so there is none.
        self._waiting: list[bytes] = []
        self._held_back = 0  # how many of them the disk has refused; more than 0 is an outage
        self._reason = ""
        self._torn = False  # the file may hold a part of the waiting lines
        if position is not None and self._bytes < position:
            say(f"ALARM: {path}: {self._bytes} bytes, {position} at the checkpoint: records before the checkpoint are lost")

    def position(self) -> int:
        """The size of the file in bytes once all appended lines are in it, those that wait in memory included."""
        return self._bytes + sum(map(len, self._waiting))

    def append(self, line: bytes) -> list[bytes]:
        """Append a line, given with its newline. Returns the lines that this call wrote: all that waited and this, or none."""
        self._waiting.append(line)
        return self._try_to_write()

    def close(self) -> list[bytes]:
        """Try once more to write lines that wait; returns those it wrote. OSError with their number if it cannot."""
        written = self._try_to_write() if self._waiting else []
        if self._waiting:
            raise OSError(f"{self._path}: {_records(len(self._waiting))} never written ({self._reason}): the history has a gap")
        return written

    def _try_to_write(self) -> list[bytes]:
        """Write all lines that wait, if possible. Reports the beginning and the end of an outage, not each failure."""
        held_back = self._held_back
        try:
            self._write()
        except OSError as error:
            self._held_back, self._reason = len(self._waiting), error.strerror or str(error)
            if not held_back:
                self._say(
                    f"ALARM: {self._path} cannot be written ({self._reason}): {_records(self._held_back)} in memory, and each "
                    "that follows; the run goes on and tries again with each record"
                )
            return []
        written, self._waiting, self._held_back = self._waiting, [], 0
        if held_back:
            self._say(f"{self._path} can be written again: {_records(held_back)} caught up")
        return written

    def _write(self) -> None:
        # By name each time: after a lazy unmount a descriptor kept open would go on writing into a file that nobody sees
        # again, and a network's file system may say only at the close what it could not keep. Without O_CREAT: while a disk is
        # away, a new file would land in the empty directory under the mount point, and the next mount would hide it.
        # Unbuffered: a buffer would keep a refused line and write it a second time.
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        try:
            self._mend(descriptor)
            self._torn = True
            for line in self._waiting:
                rest = line
                while rest:  # a disk that is filling up takes a part of a line and refuses the rest
                    rest = rest[os.write(descriptor, rest) :]
        finally:
            os.close(descriptor)
        self._torn = False
        self._bytes += sum(map(len, self._waiting))

    def _mend(self, descriptor: int) -> None:
        """Cut off what a failed write has left behind the last complete line. If the file has another size than was written,
        report it, and append after its last whole line."""
        found, expected = os.fstat(descriptor).st_size, self._bytes
        if self._torn and found > expected:
            os.ftruncate(descriptor, expected)
        elif found != expected:
            drop_torn_line(self._path)
            self._bytes = os.fstat(descriptor).st_size
            reason = "records are lost" if found < expected else "something else writes to it"
            self._say(f"ALARM: {self._path}: {found} bytes, expected the {expected} written so far: {reason}")


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The (train, eval) rows of a metrics.jsonl, each sorted by step; of a repeated step the later line counts.

    A last line without its newline is what a kill in mid-write leaves: it is ignored unless it is whole. Any other
    broken line is a ValueError naming file and line. A missing file is the FileNotFoundError it is.
    """
    lines = path.read_bytes().split(b"\n")
    rows: dict[str, dict[int, dict[str, Any]]] = {kind: {} for kind in KINDS}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _parse(line)
        if row is not None:
            rows[row["kind"]][row["step"]] = row
        elif number < len(lines):
            raise ValueError(
                f"{path}, line {number}: not a metrics record (expected a JSON object with kind "
                f"{' or '.join(KINDS)} and an integer step, got {line[:60]!r}); remove that line to read the rest"
            )
    train, evaluation = ([rows[kind][step] for step in sorted(rows[kind])] for kind in KINDS)
    return train, evaluation


def has_evaluation(path: Path, step: int) -> bool:
    """Does the file hold the evaluation after this step? Lines that are no records are passed over."""
    rows = map(_parse, path.read_bytes().split(b"\n"))
    return any(row is not None and (row["kind"], row["step"]) == ("eval", step) for row in rows)


def drop_torn_line(path: Path) -> None:
    """Make the file end with a newline: add one if its last line is a whole record, else cut that fragment off."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        whole, _, last = content.rpartition(b"\n")
        if last and _parse(last) is not None:
            file.write(b"\n")
        elif last:
            file.truncate(len(content) - len(last))


def _parse(line: bytes) -> dict[str, Any] | None:
    """The record in this line, None if it is not one."""
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
    except ValueError:  # JSONDecodeError and UnicodeDecodeError among them
        return None
    is_record = isinstance(row, dict) and row.get("kind") in KINDS and type(row.get("step")) is int
    return row if is_record else None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not strict JSON")


def _records(number: int) -> str:
    return f"{number} record" if number == 1 else f"{number} records"
