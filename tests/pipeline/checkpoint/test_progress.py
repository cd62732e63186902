"""What a resume takes from a checkpoint's manifest, and what it compares."""

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.checkpoint.progress import Progress, restored
from pipeline.optim.statistics import NormStatistics

PROGRESS = Progress(96, 8, 2, 0.25, 700, 1.5, 3, NormStatistics().state_dict())


def checkpoint(**progress: Any) -> Any:
    return SimpleNamespace(manifest={"progress": asdict(PROGRESS) | progress}, directory=Path("step-8"), step=8)


def test_progress_comes_back() -> None:
    assert restored(checkpoint(), 96, 0.25) == PROGRESS
    assert PROGRESS.norm_statistics() == NormStatistics()


def test_a_checkpoint_that_has_a_loss_scale_still_loads() -> None:
    """Written before fp16, which would have needed it, was refused for good."""
    assert restored(checkpoint(loss_scale=1.0), 96, 0.25) == PROGRESS


@pytest.mark.parametrize(("name", "stored", "here"), [("samples", "95", "96"), ("lr", "0.5", "0.25")])
def test_what_follows_from_the_step_must_be_what_was_stored(name: str, stored: str, here: str) -> None:
    with pytest.raises(ValueError, match=rf"^step-8: {name} after step 8 was {stored} when it was saved and is {here} now"):
        restored(checkpoint(**{name: float(stored) if name == "lr" else int(stored)}), 96, 0.25)
