"""Files that are whole or absent: temporary name, fsync, rename, fsync of the folder."""

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

WRITING = ".writing-"


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write `path` into; it takes its name at the block's end, and after an error is gone.

    The temporary name says host and process: two processes that write the same file at once do each other no harm.
    """
    temporary = path.with_name(f"{path.name}{WRITING}{socket.gethostname()}-{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:  # Ctrl-C too
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file, whole or not at all."""
    with written(path) as file:
        file.write(content)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory as durable as the files: an fsync of a file does not cover its name."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
