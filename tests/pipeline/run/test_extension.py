"""Which runs may be made longer, and when."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.checkpoint.layout import step_directory
from pipeline.config.load import as_dict, load_recipe
from pipeline.optim.schedules import lr_at
from pipeline.run.extension import EXTENSIONS, extended
from tests.helpers.running import SMALL

WSD = ("optim.schedule.decay=wsd", "optim.schedule.decay_fraction=0.25")
LAMB = ("model.encoder=sibert-a", "model.head=paper", "model.init=normal")


def run_file(steps: int, *settings: str) -> dict[str, Any]:
    config = load_recipe("tiny-untied", [*SMALL[1::2], f"train.steps={steps}", *settings])
    return {"config": as_dict(config), "vocab_size": 300}


def saved(run: Path, *steps: int) -> Path:
    for step in steps:
        step_directory(run, step).mkdir(parents=True)
    return run


@pytest.mark.parametrize(
    ("settings", "steps", "at"),
    [
        (("optim.schedule.decay=constant",), 60, 40),  # a run that is finished, too
        (("optim.schedule.decay=constant", "optim.schedule.warmup_steps=5"), 41, 0),
        (WSD, 60, 30),  # the step from which the rate would fall
        ((*LAMB, "optim.schedule.decay=constant", "head_optim.schedule.decay=wsd"), 60, 20),
    ],
)
def test_where_the_rate_has_not_begun_to_fall(tmp_path: Path, settings: tuple[str, ...], steps: int, at: int) -> None:
    run = saved(tmp_path / "run", *([10, at] if at else []))
    before, after = run_file(40, *settings), run_file(steps, *settings)
    assert extended(run, before, after) == {**after, EXTENSIONS: [{"steps": 40, "at_step": at}]}
    assert extended(run, before, before) == before


def test_each_extension_is_kept(tmp_path: Path) -> None:
    before, after = run_file(40, *WSD), run_file(60, *WSD)
    known = [{"steps": 20, "at_step": 8}]
    assert extended(tmp_path, before, {**after, EXTENSIONS: known})[EXTENSIONS] == [*known, {"steps": 40, "at_step": 0}]


@pytest.mark.parametrize(
    ("settings", "steps", "at", "words"),
    [
        ((), 60, 0, "optim.schedule.decay = 'linear' is a function of the whole length"),
        (("optim.schedule.decay=step", "optim.schedule.milestones=[0.6]"), 60, 8, "optim.schedule.decay = 'step'"),
        (WSD, 60, 31, "its rate falls already at step 31"),
        (WSD, 60, 40, "its rate falls already"),
        ((*LAMB, "optim.schedule.decay=constant"), 60, 10, "head_optim.schedule.decay = 'linear'"),
        ((*LAMB, "optim.schedule.decay=constant", "head_optim.schedule.decay=wsd"), 60, 38, "falls already"),
        (("optim.schedule.decay=constant",), 30, 10, "is not shortened"),
    ],
)
def test_anything_else_is_refused_with_what_to_do(
    tmp_path: Path, settings: tuple[str, ...], steps: int, at: int, words: str
) -> None:
    run = saved(tmp_path / "run", at)
    with pytest.raises(ValueError, match=f"train.steps is 40 there, {steps} here; ") as refusal:
        extended(run, run_file(40, *settings), run_file(steps, *settings))
    assert words in str(refusal.value)
    assert (f"--from {run}" in str(refusal.value)) == (steps > 40)


def test_warm_up_stable_decay() -> None:
    schedule = load_recipe("tiny-untied", ["train.steps=100", *WSD, "optim.schedule.warmup_steps=10"]).optim.schedule
    rates = [lr_at(step, 2.0, schedule, 100) for step in range(101)]
    assert rates[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert rates[10:76] == [2.0] * 66
    assert rates[75:] == pytest.approx([2.0 * (100 - step) / 25 for step in range(75, 101)])
