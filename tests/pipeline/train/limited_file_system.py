"""`python -m pipeline` on a file system like some FUSE and CIFS mounts: no fsync of a directory, no change of a mode."""

import errno
import os
import stat
from collections.abc import Callable
from typing import Any

from pipeline.__main__ import main as pipeline_main


def refuse(call: Callable[..., Any], number: int, refused: Callable[..., bool]) -> Callable[..., Any]:
    """The system's function, but for calls that the file system has not."""

    def limited(*arguments: Any, **options: Any) -> Any:
        if refused(*arguments):
            raise OSError(number, os.strerror(number))
        return call(*arguments, **options)

    return limited


def main(argv: list[str]) -> int:
    """All of this process is on such a file system."""
    os.fsync = refuse(os.fsync, errno.EINVAL, lambda descriptor: stat.S_ISDIR(os.fstat(descriptor).st_mode))
    os.chmod = refuse(os.chmod, errno.EPERM, lambda *_: True)
    return pipeline_main(argv)
