"""How tests call the command lines, and what a refusal looks like."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent


def long(*values: Any) -> list[Any]:
    """Parameters of a test that `make test` leaves out and `make test-all` does not."""
    return [pytest.param(value, marks=pytest.mark.long) for value in values]


def worker_environment(**extra: str) -> dict[str, str]:
    """For processes that tests start: one thread each (two cores here), and the packages of this repository."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **extra}


def run(command: Sequence[str | Path], timeout_s: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in the repository's folder, to its end."""
    return subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env=worker_environment(**environment),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def start_cli(*arguments: str | Path) -> "subprocess.Popen[str]":
    """Start `python -m …` as a real process."""
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        env=worker_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs tests in the background makes its children deaf to Ctrl-C; ours must hear it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def torchrun(ranks: int) -> list[str]:
    """The start of a command that runs a program on several ranks of this machine."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]


def run_cli(
    *arguments: str | Path, ranks: int = 0, timeout_s: float = 300, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`python -m …` as a user types it; `ranks` > 0 puts torchrun before it."""
    launcher = torchrun(ranks) if ranks else [sys.executable]
    return run([*launcher, "-m", *arguments], timeout_s, **environment)


def refused(result: subprocess.CompletedProcess[str], *words: str, torchrun: bool = False) -> None:
    """Assert the manners of a refusal: exit 2, one line on standard error, the words in it.

    Under torchrun, which adds a report of its own below and exits with 1, one line that says error.
    """
    lines = result.stderr.strip().splitlines()
    if torchrun:
        lines = [line for line in lines if line.startswith("python -m pipeline: error: ")]
        assert "[rank" not in result.stderr, result.stderr  # a traceback of a rank that was left alone
    assert result.returncode == (1 if torchrun else 2), result.stdout + result.stderr
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0], lines[0]


def assert_refused(code: int, err: str, *parts: str) -> None:
    """The same of `python -m preprocessing`, called in this process."""
    assert code == 2, err
    assert err.count("\n") == 1, err
    assert err.startswith("python -m preprocessing")
    for part in parts:
        assert part in err


def set_options(**values: object) -> list[str]:
    """--set for each keyword; a double underscore stands for the dot."""
    return [word for key, value in values.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]


SMALL: Sequence[str] = set_options(
    model__layers=2,
    model__width=32,
    model__heads=2,
    model__ffn_width=64,
    model__max_seq_len=64,
    data__seq_len=32,
    batch__global_sequences=16,
    batch__micro_sequences=4,
    train__steps=20,
    train__log_every_steps=1,
    train__eval_every_steps=10,
    train__eval_sequences=16,
    train__checkpoint_every_steps=10,
)
"""`tiny`, small enough that a run is all start-up."""

# The paper's wiring over a recipe of another one: SGD for the encoder, LAMB for the head.
PAPER_MODEL: Sequence[str] = set_options(
    model__encoder="sibert-a",
    model__head="paper",
    model__embedding="summed",
    model__positions="learned",
    model__token_types="true",
    model__mask_embedding="learned",
    model__branch_scale=1.0,
    model__attention_power=1,
    model__final_norm="true",
    model__init="normal",
)
