"""Child processes that begin clean and, where it can be, at once."""

import multiprocessing
from collections.abc import Sequence
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, SpawnContext

# What the children work with, by name: this file is below them. pyarrow imports pandas with its first array.
PRELOADED: Sequence[str] = ("preprocessing.build.build", "pyarrow", "pandas")


@cache
def clean_processes() -> ForkServerContext | SpawnContext:
    """A context of `multiprocessing` whose children are forked from one process that has imported everything and done nothing.

    Not from this one: SentencePiece and torch have threads, and a child forked from a process with threads can hang. Not
    spawned: each child would import for two seconds, half of the work of a small build; but that is what is done where the one
    process has no place for its socket, whose path may have some 100 characters (TMPDIR) and whose file system must know
    sockets. That process ends with this one, however it ends.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    try:
        forkserver.ensure_running()  # here: the caller may block signals before its first child, and all children inherit that
    except OSError:
        return multiprocessing.get_context("spawn")
    return context
