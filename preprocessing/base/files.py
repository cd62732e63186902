"""Files that are whole or absent, a power loss included: the one way in which this project replaces a file.

A temporary file beside it, its fsync, a rename, and an fsync of the folder: an fsync of a file does not cover its name.
"""

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

WRITING = ".writing-"  # in the name of every temporary file; what carries it is never read


def temporary_name(path: Path) -> Path:
    """The name under which this process writes `path`. It says host and process: two processes that write the same file at once
    do each other no harm."""
    return path.with_name(f"{path.name}{WRITING}{socket.gethostname()}-{os.getpid()}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path, for what wants to write a file by its name. At the block's end the file that is there is synced and
    takes the name `path`; after an error it is gone, and what was at `path` stays.

    Its mode is the one that the user's umask gives, whatever the block has put there. A device or a pipe (/dev/stdout) cannot
    be replaced: the path of one is given as it is.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        yield path
        return
    temporary = temporary_name(path)
    temporary.unlink(missing_ok=True)  # of a process that had this number and was killed
    try:
        mode = _create(temporary)
        yield temporary
        if temporary.stat().st_mode != mode:
            temporary.chmod(mode)
        _sync(temporary)
        os.rename(temporary, path)
    except BaseException:  # Ctrl-C too
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """`replacing` as a binary file to write into."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        yield file


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file, whole or not at all."""
    with written(path) as file:
        file.write(content)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power loss."""
    _sync(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _create(path: Path) -> int:
    """An empty file; returns the mode that it got. (Asking for the umask itself would change it for other threads.)"""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return os.fstat(descriptor).st_mode
    finally:
        os.close(descriptor)
