"""The bytes of a plain, gzip or bzip2 file in blocks of bounded size, and where in the raw file each block came from.

A compressed file is fed to the decompressor in chunks of CHUNK_BYTES. The raw position of a decompressed byte is where the
chunk starts that had been fed last when the byte came out: coarse, but the same in every run.
"""

import bz2
import zlib
from collections.abc import Iterator
from typing import IO, NamedTuple

CHUNK_BYTES = 64 * 1024
BLOCK_BYTES = 1 << 20


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
    return name.endswith((".gz", ".bz2"))


def blocks_of(file: IO[bytes], name: str) -> Iterator[Block]:
    """The (decompressed) blocks of a file, from where it stands on (compressed: its start). Damage: broken compression."""
    return _decompressed(file, gzip=name.endswith(".gz")) if is_compressed(name) else _plain(file)


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


def _decompressed(file: IO[bytes], gzip: bool) -> Iterator[Block]:
    """Members may follow one another (and, in gzip, zeros may follow a member)."""
    member: _Gunzip | bz2.BZ2Decompressor = _Gunzip() if gzip else bz2.BZ2Decompressor()
    raw, size, between_members = 0, 0, False
    while pending := file.read(CHUNK_BYTES):
        raw, size = size, size + len(pending)
        while True:
            if between_members:
                pending = pending.lstrip(b"\0") if gzip else pending
                if not pending:
                    break
                member = _Gunzip() if gzip else bz2.BZ2Decompressor()
            try:
                data = member.decompress(pending, BLOCK_BYTES)
            except (zlib.error, OSError) as error:  # OSError is bz2's; no file is read in here
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
