"""Fine-tuning in seconds: the settings of a small pretraining, and the command lines of what follows it."""

from collections.abc import Sequence
from pathlib import Path

from tests.helpers.running import SMALL, set_options

PRETRAINING = (*SMALL, *set_options(model__max_seq_len=96, train__steps=2, train__log_every_steps=1))
SHORT = set_options(
    data__seq_len=64,
    task__stride=16,
    task__epochs=2,
    batch__global_sequences=8,
    batch__micro_sequences=2,
    train__log_every_steps=3,
    train__checkpoint_every_steps=4,
    train__timeout_s=60,
)


def words(verb: str, task: str, run: Path, data: Path, out: Path, *more: str) -> Sequence[str | Path]:
    return [verb, "--task", task, "--run", run, "--data", data, "--out", out, *SHORT, *more]
