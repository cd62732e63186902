"""Every command of the README runs. The long ones are shortened here, in sight: see SHORTENED."""

import gzip
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.running import ROOT, long

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.strip()
    for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]
TESTED = {
    "python -m pipeline certify": "test_certify.py runs the same",
    "python -m pipeline invariance --recipe base": "test_invariance_report.py does it with smaller ones",
}
ELSEWHERE = {
    "make demo": "tests/test_demo.py runs it",
    "make test": "is what runs this test",
    "make test PYTEST_ARGS=\"-m 'not slow and not long'\"": "the same with a filter",
    "make test PYTEST_ARGS=tests/cluster": "the same with a folder",
    "make test-all": "the same and more",
    "tensorboard --logdir runs": "a server: it does not end",
}
SHORTENED = {
    "--recipe small": "--set train.steps=2 --set train.checkpoint_every_steps=1 --set train.eval_sequences=16 "
    "--set optim.schedule.warmup_steps=1",
    "--vocab-size 8192": "--vocab-size 1024 --heldout-fraction 0.02",
}


def shortened(command: str) -> str:
    for part, addition in SHORTENED.items():
        if part in command:
            command = f"{command} {addition}"
    return command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's folders beside the data that the README speaks of, small."""
    place = tmp_path_factory.mktemp("readme")
    for name in ("preprocessing", "pipeline", "ds_configs", "slurm"):
        (place / name).symlink_to(ROOT / name)
    import pydoc_data.topics

    topics = list(pydoc_data.topics.topics.items())
    for source, part in (("wiki", topics[::2]), ("books", topics[1::2])):
        (place / "data" / source).mkdir(parents=True)
        with gzip.open(place / "data" / source / "part-0.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps({"title": title, "text": text}) + "\n" for title, text in part)
    return place


def test_the_readme_has_commands_and_every_exception_is_one_of_them() -> None:
    assert len(COMMANDS) >= 8
    assert set(ELSEWHERE) <= set(COMMANDS), "an exception for a command that is gone"


@pytest.mark.parametrize(
    "command", [*(c for c in COMMANDS if c not in {*ELSEWHERE, *TESTED}), *long(*(c for c in COMMANDS if c in TESTED))]
)
def test_command_runs(command: str, folder: Path) -> None:
    """In the README's order: later commands use what earlier ones made."""
    words = ["bash", "-c", shortened(command)]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"


def test_every_link_and_picture_of_the_readme_is_there() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert {"docs/design.md", "docs/slurm.md"} <= set(targets), "these were not found: has the pattern gone blind?"
    assert any(target.endswith(".png") for target in targets)
    for target in targets:
        assert (ROOT / target).is_file(), target
