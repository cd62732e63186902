"""Children of a build: from the prepared process, and where it has no place for its socket."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.running import ROOT

ASKS = """
from preprocessing.base.processes import clean_processes
if __name__ == "__main__":
    context = clean_processes()
    with context.Pool(1) as pool:
        print(context.get_start_method(), pool.apply(abs, (-7,)))
"""


@pytest.mark.parametrize(("folder", "method"), [("short", "forkserver"), ("long" * 30, "spawn")])
def test_children_work_wherever_temporary_files_are(tmp_path: Path, folder: str, method: str) -> None:
    (tmp_path / "asks.py").write_text(ASKS)
    (tmp_path / folder).mkdir()
    place = "/tmp" if folder == "short" else tmp_path / folder  # pytest's own folders are too long for a socket
    environment = os.environ | {"TMPDIR": str(place), "PYTHONPATH": str(ROOT)}
    words = [sys.executable, tmp_path / "asks.py"]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{method} 7\n", "")
