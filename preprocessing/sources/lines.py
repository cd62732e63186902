"""Lines out of a plain or compressed file: bounded in memory, each with its place, from any part of the file on.

What ends a line may be more than a line break: the pages of a dump are "lines" that end with </page>, wherever they stand.

A part of a file owns the lines that start in its range of raw (compressed) bytes; so every line has one owner, whatever
the parts. Only a plain file can be entered in the middle: of a compressed one what lies before is decompressed and thrown
away, unless a `Lines` that stands there already goes on.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from preprocessing.sources.blocks import Block, Damage, blocks_of, is_compressed

NEWLINES = b"\r\n"
TAIL_BYTES = 64
END_OF_FILE = 1 << 63
"""A raw position after every other: where the last part of a file ends."""


class Line(NamedTuple):
    """One line with its ending: where it starts (uncompressed byte), its raw position, its bytes (None: too many), its size."""

    start: int
    raw: int
    text: bytes | None
    size: int


class Lines:
    """The lines of one file, forwards. `damage` is set where compressed data break off: there are no lines behind.

    Fourteen attributes, because reading lines out of compressed blocks is one state.
    """

    def __init__(self, path: Path, file_bytes: int, max_line_bytes: int, ending: bytes = b"\n") -> None:
        self.damage: Damage | None = None
        self._path = path
        self._ending = ending
        self._file_bytes = file_bytes
        self.max_line_bytes = max_line_bytes
        self._compressed = is_compressed(path.name)
        self._file = open(path, "rb")  # noqa: SIM115 (closed by close())
        self._blocks = blocks_of(self._file, path.name)
        self._block = Block(b"", 0)
        self._at = 0  # within the block
        self._block_start = 0  # uncompressed
        self._ended = False
        self._tail = b""
        self._given_back: Line | None = None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def position(self) -> int:
        """Where the next line starts, in uncompressed bytes."""
        return self._given_back.start if self._given_back else self._block_start + self._at

    def tail(self) -> bytes:
        """The last bytes of a file whose end was met."""
        if not self._compressed:  # a part may have been entered behind the last line's start
            self._file.seek(max(0, self._file_bytes - TAIL_BYTES))
            return self._file.read()
        return self._tail

    def give_back(self, line: Line) -> None:
        """Let `line`, the last one that was read, be the next one again."""
        assert self._given_back is None
        self._given_back = line

    def enter(self, raw: int) -> None:
        """Go forwards to the first line that starts at raw position `raw` or later."""
        if self._given_back is not None:
            if self._given_back.raw >= raw:
                return
            self._given_back = None
        if self._compressed:
            self._skip_compressed(raw)
        elif raw > self.position:
            # From an ending's length before: if an ending stands just there, the line at `raw` is whole.
            begin = max(0, raw - len(self._ending))
            self._file.seek(begin)
            self._blocks = blocks_of(self._file, self._path.name)
            self._block, self._at, self._block_start = Block(b"", begin), 0, begin
            for _ in self._rest_of_line():
                pass

    def next_line(self) -> Line | None:
        """The next line; None at the end. A line longer than the limit is measured, not kept."""
        if self._given_back is not None:
            line, self._given_back = self._given_back, None
            return line
        if not self._fill():
            return None
        start = self._block_start + self._at
        raw = self._block.raw if self._compressed else start
        found = self._block.data.find(self._ending, self._at)
        end = found + len(self._ending)
        if found >= 0 and end <= self._at + self.max_line_bytes:
            text = self._block.data[self._at : end]
            self._at = end
            return Line(start, raw, text, len(text))
        return self._long_line(start, raw)

    def lines_before(self, raw: int) -> Iterator[Line]:
        """The lines that start before raw position `raw`; the one behind them stays to be read."""
        while line := self.next_line():
            if line.raw >= raw:
                self.give_back(line)
                return
            yield line

    def _long_line(self, start: int, raw: int) -> Line | None:
        pieces: list[bytes] = []
        size, last = 0, b""
        for piece in self._rest_of_line():
            if size <= self.max_line_bytes + len(NEWLINES):
                pieces.append(piece)
            size += len(piece)
            last = (last + piece)[-max(2, len(self._ending)) :]
        if self.damage and not last.endswith(self._ending):
            return None  # cut off: no line
        content_bytes = size - (len(last) - len(last.rstrip(NEWLINES)))
        return Line(start, raw, b"".join(pieces) if content_bytes <= self.max_line_bytes else None, size)

    def _rest_of_line(self, before: bytes = b"") -> Iterator[bytes]:
        """What is left of the line, piece by piece, each at most a block. `before`: its last bytes that were passed already."""
        while self._fill():
            length = self._length_to_ending(before)
            piece = self._block.data[self._at : None if length is None else self._at + length]
            self._at += len(piece)
            yield piece
            if length is not None:
                return
            before = (before + piece)[-len(self._ending) :]

    def _length_to_ending(self, before: bytes) -> int | None:
        """How many bytes of the block are the line's, if it ends there; the ending may begin in `before`, the block before."""
        size = len(self._ending)
        overlap = before[max(0, len(before) - size + 1) :]
        straddling = (overlap + self._block.data[self._at : self._at + size - 1]).find(self._ending) if overlap else -1
        if straddling >= 0:
            return straddling + size - len(overlap)
        found = self._block.data.find(self._ending, self._at)
        return found + size - self._at if found >= 0 else None

    def _skip_compressed(self, raw: int) -> None:
        last, skipped = b"", False
        while self._fill() and self._block.raw < raw:
            last, skipped = (last + self._block.data[self._at :])[-len(self._ending) :], True
            self._at = len(self._block.data)
        if skipped and last != self._ending:
            for _ in self._rest_of_line(last):
                pass

    def _fill(self) -> bool:
        """Have a byte at hand; False at the file's end, and at damage."""
        if self._at < len(self._block.data):
            return True
        if self.damage or self._ended:
            return False
        try:
            block = next(self._blocks, None)
        except Damage as damage:
            self.damage = damage
            return False
        if block is None:
            self._ended = True
            if self._file.tell() != self._file_bytes:
                raise ValueError(
                    f"{self._path}: ends after {self._file.tell()} bytes, expected {self._file_bytes}: it changed while it "
                    f"was read; leave the sources alone during a build, and start again"
                )
            return False
        self._block_start += len(self._block.data)
        self._tail = (self._tail + block.data[-TAIL_BYTES:])[-TAIL_BYTES:]
        self._block, self._at = block, 0
        return True
