"""The scales of start and loss do nothing to the recipe, and ruin what has no weight decay or is not scale invariant."""

import math
from typing import Any

import pytest

from pipeline.experiments.robustness.experiment import ADAMW, BUDGETED, RECIPE, SGD, UNDECAYED
from tests.pipeline.experiments.conftest import Quick


@pytest.fixture(scope="module")
def result(quick: Quick) -> dict[str, Any]:
    return quick("robustness")


@pytest.fixture(scope="module")
def spans(result: dict[str, Any]) -> dict[str, float]:
    return {arm: math.inf if span is None else span for arm, span in result["measured"]["spans"].items()}


def test_the_recipe_ends_at_one_loss_from_every_scale(result: dict[str, Any], spans: dict[str, float]) -> None:
    assert len(result["measured"]["losses"][RECIPE]) == 7
    assert spans[RECIPE] <= 1e-4, "the goal is 0.03; both scales cancel but for rounding"
    assert result["measured"]["losses"][RECIPE]["start 1, loss 1"] < result["measured"]["heldout_unigram_entropy_nats"]


def test_weight_decay_makes_a_plain_start_robust_and_without_it_it_is_not(spans: dict[str, float]) -> None:
    assert spans[BUDGETED] <= 0.15
    assert spans[UNDECAYED] > 1.5 * spans[BUDGETED]


def test_bert_is_ruined_under_either_optimiser(spans: dict[str, float]) -> None:
    assert spans[ADAMW] > 1
    assert spans[SGD] > 1


def test_every_trial_of_bert_is_told(result: dict[str, Any]) -> None:
    """Three rates for SGD and three for AdamW, chosen by the same rule."""
    tried = result["measured"]["by_rate_at_1"]
    assert len(tried[SGD]) == len(tried[ADAMW]) == 3
    for arm in (SGD, ADAMW):
        losses = [loss for loss in tried[arm].values() if loss is not None]
        assert result["measured"]["losses"][arm]["start 1, loss 1"] == min(losses)
    assert len(result["settings"]) == 7 + 5 + 5 + 2 + 5 + 2 + 5
