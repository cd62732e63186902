"""Files that are whole or absent, a power loss included: the one way in which this project replaces a file.

A temporary file beside it, its fsync, a rename, and an fsync of the folder: an fsync of a file does not cover its name.
"""

import errno
import hashlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

WRITING = ".writing-"  # in the name of every temporary file; what carries it is never read
# What a file system answers that has no such thing: some FUSE and CIFS mounts sync no directory, change no mode, make no link.
NOT_OFFERED = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EPERM, errno.EACCES)


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
            with offered_or_not():
                temporary.chmod(mode)
        _sync(temporary)
        os.rename(temporary, path)
    except BaseException:  # Ctrl-C too
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A temporary directory beside `path`, to be filled by the block; at its end it takes the name `path`, after an error it is
    gone. ValueError if there is something at `path`, or no directory to put it into."""
    if os.path.lexists(path):
        raise ValueError(f"{path} exists: give a new name, or move it away")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: no directory {path.parent}; make it first")
    temporary = temporary_name(path)
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that had this number and was killed
    try:
        temporary.mkdir()
        yield temporary
        sync_directory(temporary)
        if os.path.lexists(path):  # another process was faster; a rename would replace an empty directory
            raise ValueError(f"{path} exists: it was made meanwhile; move it away")
        os.rename(temporary, path)
    except BaseException:  # Ctrl-C too
        shutil.rmtree(temporary, ignore_errors=True)
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


def user_text(path: Path) -> str:
    """The text of a file that somebody wrote in an editor: UTF-8, without the byte order mark that some editors put before it.
    ValueError naming the file if it is something else."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from error


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power loss, where the file system offers that."""
    with offered_or_not():
        _sync(directory)


@contextmanager
def offered_or_not() -> Iterator[None]:
    """For what a file is whole without: a file system that has no such thing is let be, any other error is raised."""
    try:
        yield
    except OSError as error:
        if error.errno not in NOT_OFFERED:
            raise


def try_to_write(directory: Path) -> list[str]:
    """Do in a directory all that writing files whole takes, and a directory of them, which gets its name when it is full, as
    checkpoints do; leave nothing. Returns what its file system does not offer and can be done without, a line each; OSError,
    naming the path, for anything else."""
    trial = directory / f".trial-{socket.gethostname()}-{os.getpid()}"
    full = trial.with_name(f"{trial.name}-full")
    file, other = full / "file", full / "other"
    try:
        trial.mkdir()
        write_whole(trial / file.name, b"trial")
        os.rename(trial, full)  # mounts of object stores may refuse it where there is something in it
        other.write_bytes(b"newer")
        os.rename(other, file)
        return [
            f"{directory}: its file system offers no {what} ({error.strerror}); {consequence}"
            for what, attempt, consequence in (
                ("fsync of a directory", partial(_sync, directory), "a power loss may take the newest files"),
                ("change of a file's mode", partial(file.chmod, file.stat().st_mode), "files have the mode it gives them"),
            )
            if (error := _refusal(attempt)) is not None
        ]
    finally:
        for made in (trial, full):
            shutil.rmtree(made, ignore_errors=True)


def _refusal(attempt: Callable[[], None]) -> OSError | None:
    try:
        attempt()
    except OSError as error:
        if error.errno in NOT_OFFERED:
            return error
        raise
    return None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error  # an fsync does not know its file's name
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
