"""Files that are whole or absent, and arrays that are read a piece at a time."""

import os
from pathlib import Path

import numpy as np
import pytest

from preprocessing.base.arrays import StoredArray, write_array
from preprocessing.base.files import write_whole, written


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


def test_it_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut after the rename must not find an empty file; no kill can show that, so the order is looked at."""
    order = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "rename", lambda old, new: (order.append("rename"), rename(old, new)))
    write_whole(tmp_path / "a", b"content")
    assert order == ["fsync", "rename", "fsync"]  # the last one is the folder's


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"old")

    def fail() -> None:
        with written(tmp_path / "a") as file:
            file.write(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


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
