"""Several processes of pytest-xdist run the tests: which of them runs what, and what is made once for all of them.

A file's tests stay together, so that its fixtures are made once. Nothing depends on the order.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

FIRST = (
    "tests/cluster/test_life.py",
    "tests/test_demo.py",
    "tests/cluster/",
    "tests/pipeline/train/",
    "tests/pipeline/verify/",
    "tests/test_readme.py",
)
"""What takes longest, so that the last to be begun is short. The tests of the cluster mostly wait: so there are more processes
than cores (Makefile)."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """Whatever --dist says."""
    config.option.loadscopereorder = False  # would begin with the files of most tests, which are the quick ones
    return LoadFileScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those of FIRST first; else as they are."""

    def place(item: pytest.Item) -> int:
        return next((number for number, start in enumerate(FIRST) if item.nodeid.startswith(start)), len(FIRST))

    items.sort(key=place)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills, in the process that asks first; the others wait. It is everybody's: to be read only."""
    own = factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    made = folder.with_name(f"{name}.made")
    with folder.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            folder.mkdir(exist_ok=True)  # there already if somebody tried and failed
            make(folder)
            made.touch()
    return folder
