"""Files that are whole or absent, and arrays that are read a piece at a time."""

import errno
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from preprocessing.base.arrays import StoredArray, write_array
from preprocessing.base.files import replacing, temporary_name, try_to_write, write_whole, written
from preprocessing.base.json_file import write_object


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_whole(path, b"old")
    with written(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        (temporary,) = (one for one in tmp_path.iterdir() if one != path)
        assert temporary.name.startswith("a.writing-")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def by_name(path: Path) -> None:
    """As safetensors does: another file takes the temporary one's name."""
    with replacing(path) as temporary:
        private = os.open(path.with_name("private"), os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(private, b"content")
        os.close(private)
        os.replace(path.with_name("private"), temporary)


WAYS: dict[str, Callable[[Path], None]] = {
    "bytes": lambda path: write_whole(path, b"content"),
    "object": lambda path: write_object(path, {"a": 1}),
    "array": lambda path: write_array(path, np.arange(3)),
    "by name": by_name,
}


@pytest.mark.parametrize("way", WAYS)
def test_it_is_synced_before_it_is_renamed_and_its_name_after(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the rename must not find an empty file, nor undo the rename; no kill can show that, so the order of the
    calls is looked at, and which inode each of them was for."""
    calls: list[tuple[str, int]] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(descriptor: int) -> None:
        calls.append(("fsync", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def noted_rename(old: Path, new: Path) -> None:
        calls.append(("rename", old.stat().st_ino))
        rename(old, new)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    path = tmp_path / "a"
    WAYS[way](path)
    file, folder = path.stat().st_ino, tmp_path.stat().st_ino
    assert calls == [("fsync", file), ("rename", file), ("fsync", folder)]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o022, 0o027])
@pytest.mark.parametrize("way", WAYS)
def test_others_may_read_it_if_the_user_lets_them(way: str, umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        WAYS[way](tmp_path / "a")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask


def test_the_leftover_of_a_killed_process_with_this_number_is_overwritten(tmp_path: Path) -> None:
    """Process numbers come again, in a container nearly always."""
    leftover = temporary_name(tmp_path / "a")
    leftover.write_bytes(b"a longer half of a file")
    leftover.chmod(0o400)
    write_whole(tmp_path / "a", b"content")
    assert (tmp_path / "a").read_bytes() == b"content"
    assert (tmp_path / "a").stat().st_mode & stat.S_IWUSR, "the mode of a new file"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_pipe_is_written_into_and_stays_one(tmp_path: Path) -> None:
    """As `--json-file /dev/stdout`: a rename would put a file where the device was."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, b"content")
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    assert pipe.is_fifo()


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"old")

    def fail() -> None:
        with written(tmp_path / "a") as file:
            file.write(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, number: int, refuses: Callable[[object], bool]) -> None:
    """A file system that answers so to some calls of os."""
    call = getattr(os, name)

    def limited(what: object, *arguments: object, **options: object) -> object:
        if refuses(what):
            raise OSError(number, os.strerror(number), what if isinstance(what, (str, Path)) else None)
        return call(what, *arguments, **options)

    monkeypatch.setattr(os, name, limited)


def is_directory(descriptor: object) -> bool:
    return stat.S_ISDIR(os.fstat(int(str(descriptor))).st_mode)


def test_a_trial_of_a_whole_file_system_says_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    assert try_to_write(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EPERM])
def test_a_trial_says_what_can_be_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int) -> None:
    refuse(monkeypatch, "fsync", number, is_directory)
    refuse(monkeypatch, "chmod", number, lambda path: True)
    synced, mode = try_to_write(tmp_path)
    assert synced.startswith(f"{tmp_path}: its file system offers no fsync of a directory ({os.strerror(number)}); ")
    assert mode.startswith(f"{tmp_path}: its file system offers no change of a file's mode ({os.strerror(number)}); ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "number", "refuses"),
    [
        ("rename", errno.EXDEV, lambda path: True),
        ("rename", errno.EPERM, lambda path: True),  # harmless where a mode is changed, not here
        ("rename", errno.ENOSYS, lambda path: os.path.isdir(path)),  # as gcsfuse does: a checkpoint is a directory
        ("rename", errno.EEXIST, lambda path: os.path.basename(path) == "other"),  # onto a file, as `latest` is replaced
        ("fsync", errno.EIO, is_directory),
        ("fsync", errno.EINVAL, lambda descriptor: not is_directory(descriptor)),  # a file that cannot be made safe
        ("chmod", errno.EIO, lambda path: True),
    ],
)
def test_a_trial_fails_where_a_save_would(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, number: int, refuses: Callable[[object], bool]
) -> None:
    refuse(monkeypatch, name, number, refuses)
    with pytest.raises(OSError, match=re.escape(str(tmp_path))) as error:
        try_to_write(tmp_path)
    assert error.value.errno == number
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(0,), (7,), (5, 3), (0, 3)])
def test_a_stored_array_gives_the_pieces_of_the_array(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape)
    write_array(tmp_path / "a.npy", array)
    stored = StoredArray(tmp_path / "a.npy")
    assert len(stored) == len(array)
    for start in range(len(array) + 2):
        for stop in range(start, len(array) + 3):
            assert (stored[start:stop] == array[start:stop]).all()
            assert stored[start:stop].shape == array[start:stop].shape
    places = np.arange(len(array))[::-2]
    assert (stored[places] == array[places]).all()


def test_a_stored_array_keeps_no_file_open(tmp_path: Path) -> None:
    write_array(tmp_path / "a.npy", np.zeros(10, np.uint8))
    before = len(os.listdir("/proc/self/fd"))
    kept = [StoredArray(tmp_path / "a.npy") for _ in range(20)]
    assert sum(len(one[2:4]) for one in kept) == 40
    assert len(os.listdir("/proc/self/fd")) == before
