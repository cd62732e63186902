"""What a recipe says of its own run is held against runs of the same settings, and against no others."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.load import as_dict, learns_nats, load_recipe
from pipeline.report.expectation import FAR_NATS, Expectation, expectation
from pipeline.report.recorded_run import Run

OWN = 1.735  # of `tiny`


def run_of(recipe: str, *settings: str, older: str | None = None) -> Run:
    """A run of a recipe; `older`: a key that its version did not have."""
    config: dict[str, Any] = as_dict(load_recipe(recipe, settings))
    if older:
        del config["optim"][older]
    documents: dict[str, Any] = {key: {} for key in ("ds_config", "versions", "summary", "guesses", "start")}
    return Run("run", {"recipe": recipe}, config, train=[], evaluations=[], **documents)


@pytest.mark.parametrize("older", [None, "clip_over"])
def test_a_run_far_below_is_short_and_one_near_is_not(older: str | None) -> None:
    run = run_of("tiny", "train.seed=3", "batch.micro_sequences=8", older=older)
    assert expectation(run, OWN - FAR_NATS + 0.01) == Expectation(OWN, None)
    assert expectation(run, OWN + 1) == Expectation(OWN, None)
    found = expectation(run, 0.0)
    assert found is not None
    assert found.short == pytest.approx(OWN)


@pytest.mark.parametrize("setting", ["train.steps=100", "model.layers=1", "batch.global_sequences=64", "optim.clip_c=4"])
def test_of_a_run_with_other_settings_nothing_is_expected(setting: str) -> None:
    assert expectation(run_of("tiny", setting), 0.0) is None


def test_of_a_recipe_that_says_nothing_or_is_gone_nothing_is_expected(tmp_path: Path) -> None:
    assert expectation(run_of("base"), 0.0) is None
    mine = tmp_path / "mine.toml"
    mine.write_text('extends = "tiny"\nlearns_nats = 2\n')
    run = run_of(str(mine))
    assert expectation(run, 0.0) == Expectation(2, 2)
    mine.write_text('extends = "tiny"\n')
    assert learns_nats(str(mine)) is None  # what it extends does not speak for it
    mine.unlink()
    assert expectation(run, 0.0) is None
