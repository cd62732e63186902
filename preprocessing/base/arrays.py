"""Arrays in .npy files: written whole, read a piece at a time without a file kept open."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.base.files import written


def write_array(path: Path, array: NDArray[Any]) -> None:
    """np.save, whole or not at all (through memory: np.save to a file on a full disk hides the reason)."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    with written(path) as file:
        file.write(buffer.getbuffer())


class StoredArray:
    """An array in a .npy file, opened only while a piece is read.

    A memory map keeps its file open, and a build has more slices than a process may have open files.
    """

    def __init__(self, path: Path) -> None:
        found = np.load(path, mmap_mode="r")
        self.path, self.shape, self.dtype = path, found.shape, found.dtype
        self._row_items = int(np.prod(found.shape[1:]))
        self._header_bytes = path.stat().st_size - found.nbytes

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, item: Any) -> NDArray[Any]:
        """A copy of the piece. Consecutive rows are read from where they stand."""
        if not isinstance(item, slice):
            return np.array(np.load(self.path, mmap_mode="r")[item])
        start, stop, step = item.indices(len(self))
        assert step == 1
        count = max(0, stop - start) * self._row_items
        offset = self._header_bytes + start * self._row_items * self.dtype.itemsize
        return np.fromfile(self.path, self.dtype, count, offset=offset).reshape(-1, *self.shape[1:])
