"""The bytes of a plain, gzip, bzip2, xz or zstd file in blocks of bounded size, and where in the raw file each block came from.

A compressed file is fed to the decompressor in chunks of CHUNK_BYTES. The raw position of a decompressed byte is where the
chunk starts that had been fed last when the byte came out: coarse, but the same in every run.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

CHUNK_BYTES = 64 * 1024
BLOCK_BYTES = 1 << 20
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")


class Block(NamedTuple):
    """Consecutive bytes, never none, and a raw position: of the first one (plain), or of all of them (compressed)."""

    data: bytes
    raw: int


class Damage(Exception):
    """The compressed data end too early, or are broken, in the chunk at `raw`."""

    def __init__(self, reason: str, detail: str, raw: int) -> None:
        super().__init__(reason, detail, raw)
        self.reason = reason
        self.detail = detail
        self.raw = raw


def is_compressed(name: str) -> bool:
    """Whether `blocks_of` decompresses a file of this name."""
    return name.endswith(COMPRESSED)


def blocks_of(file: IO[bytes], name: str) -> Iterator[Block]:
    """The (decompressed) blocks of a file, from where it stands on (compressed: its start). Damage: broken compression."""
    if name.endswith(".zst"):
        return _zstd(file)
    return _decompressed(file, name.rpartition(".")[2]) if is_compressed(name) else _plain(file)


def _plain(file: IO[bytes]) -> Iterator[Block]:
    raw = file.tell()
    while data := file.read(BLOCK_BYTES):
        yield Block(data, raw)
        raw += len(data)


class _Gunzip:
    """zlib's decompressor of one gzip member, with the manners of bz2.BZ2Decompressor."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)
        self._full = False

    def decompress(self, data: bytes, max_length: int) -> bytes:
        piece = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self._full = len(piece) == max_length  # there may be more inside
        return piece

    @property
    def needs_input(self) -> bool:
        return not self._full and not self._zlib.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data


_Member = _Gunzip | bz2.BZ2Decompressor | lzma.LZMADecompressor
_MEMBERS: dict[str, Callable[[], _Member]] = {"gz": _Gunzip, "bz2": bz2.BZ2Decompressor, "xz": lzma.LZMADecompressor}


def _decompressed(file: IO[bytes], suffix: str) -> Iterator[Block]:
    """Members may follow one another (and, in gzip and xz, zeros may follow a member)."""
    new_member, padded = _MEMBERS[suffix], suffix != "bz2"
    member = new_member()
    raw, size, between_members = 0, 0, False
    while pending := file.read(CHUNK_BYTES):
        raw, size = size, size + len(pending)
        while True:
            if between_members:
                pending = pending.lstrip(b"\0") if padded else pending
                if not pending:
                    break
                member = new_member()
            try:
                data = member.decompress(pending, BLOCK_BYTES)
            except (zlib.error, lzma.LZMAError, OSError) as error:  # OSError is bz2's; no file is read in here
                detail = f"{error}, in the {CHUNK_BYTES >> 10} KiB from raw byte {raw} on; fetch the file again"
                raise Damage("broken compression", detail, raw) from None
            if data:
                yield Block(data, raw)
            between_members = member.eof
            pending = member.unused_data if between_members else b""
            if not between_members and member.needs_input:
                break
    if not between_members:
        raise Damage("truncated file", f"the compressed data break off after {size} bytes; fetch the file again", raw)


def _zstd(file: IO[bytes]) -> Iterator[Block]:
    """By pyarrow, which reads the file itself; frames may follow one another."""
    import pyarrow as pa

    size, raw = 0, 0
    with pa.CompressedInputStream(pa.PythonFile(_Unclosed(file), mode="r"), "zstd") as stream:
        while True:
            try:
                data = stream.read(BLOCK_BYTES)
            except (OSError, pa.ArrowException) as error:
                said = str(error).lower()
                reason = "truncated file" if "end" in said or "truncated" in said else "broken compression"
                detail = f"{' '.join(str(error).split())}, after {size} bytes; fetch the file again"
                raise Damage(reason, detail, raw) from None
            if not data:
                return
            yield Block(data, raw)
            size, raw = size + len(data), file.tell()


class _Unclosed:
    """A file that whoever reads it does not close."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def close(self) -> None:
        """Leave it open."""
        self.closed = True

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False
