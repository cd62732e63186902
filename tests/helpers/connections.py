"""Connections of this process, broken as by a network."""

import contextlib
import os
import socket
from pathlib import Path


def cut_connections(port: int) -> None:
    """Every one to that port."""
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if path.is_socket():
                with socket.socket(fileno=os.dup(int(path.name))) as connection:
                    if connection.getpeername()[1] == port:
                        connection.shutdown(socket.SHUT_RDWR)
