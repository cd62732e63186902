"""A disk that fails at random."""

import errno
import os
import random
from typing import Any


class FailingDisk:
    """os with calls that may fail: a write takes a part of the bytes, a close loses a part of what it was to store."""

    def __init__(self, seed: int) -> None:
        self.random, self.well, self.size = random.Random(seed), True, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fail(self, code: int) -> None:
        if not self.well and self.random.random() < 0.2:
            raise OSError(code, os.strerror(code))

    def open(self, *arguments: Any) -> int:
        self.fail(errno.ESTALE)
        self.size = os.stat(arguments[0]).st_size
        return os.open(*arguments)

    def write(self, descriptor: int, data: bytes) -> int:
        if self.well or self.random.random() < 0.6:
            return os.write(descriptor, data)
        taken = os.write(descriptor, data[: self.random.randint(1, len(data))])
        self.fail(errno.ENOSPC)
        return taken

    def ftruncate(self, descriptor: int, size: int) -> None:
        self.fail(errno.EIO)
        os.ftruncate(descriptor, size)

    def close(self, descriptor: int) -> None:
        try:
            self.fail(errno.EDQUOT)
        except OSError:
            size = os.fstat(descriptor).st_size
            os.ftruncate(descriptor, self.random.randint(min(self.size, size), size))
            raise
        finally:
            os.close(descriptor)
