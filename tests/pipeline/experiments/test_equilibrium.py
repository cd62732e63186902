"""The norm settles where theory says, after the time that theory says, from a hundredth and from a hundred times the start."""

import math
from typing import Any

import pytest

from pipeline.experiments.equilibrium.norms import NEAR, predicted_steps
from tests.pipeline.experiments.conftest import Quick


@pytest.fixture(scope="module")
def measured(quick: Quick) -> dict[str, Any]:
    return quick("equilibrium")["measured"]


def test_every_start_settles_where_it_is_predicted(measured: dict[str, Any]) -> None:
    """A factor 2 in σ² or in lr/wd would be a factor 1.19."""
    assert list(measured) == ["0.01", "1", "100"]
    for start, of in measured.items():
        assert of["norm"] == pytest.approx(of["predicted"], rel=0.12), f"from {start}"
        assert of["largest_cosine"] < 1e-5, "Euler"


def test_it_takes_the_logarithm_over_lr_times_weight_decay(measured: dict[str, Any]) -> None:
    """From above by weight decay; from below, at C = 2, as fast by clipped steps. lr · wd is 0.02."""
    for start, sign in (("0.01", -1), ("100", 1)):
        of = measured[start]
        leading = sign * math.log(of["ratio"]) / 0.02
        assert of["arrival_step"] == pytest.approx(of["predicted_steps"], rel=0.06), f"from {start}"
        assert of["arrival_step"] == pytest.approx(leading, rel=0.1), f"from {start}"


def test_growth_from_below_is_all_clipped_and_decay_from_above_is_not(measured: dict[str, Any]) -> None:
    assert measured["0.01"]["clipped_before_arrival"] > 0.9
    assert measured["100"]["clipped_before_arrival"] < 0.02


def test_every_matrix_has_an_equilibrium_of_its_own(measured: dict[str, Any]) -> None:
    matrices = measured["1"]["matrices"]
    assert len(matrices) == 7, "the embedding, four of attention, two of the feed-forward"
    for name, of in matrices.items():
        few_steps_decide = name.removesuffix(".weight").endswith(("query", "key", "value"))
        assert of["norm"] == pytest.approx(of["predicted"], rel=0.3 if few_steps_decide else 0.1), name
    together = math.hypot(*(of["norm"] for of in matrices.values()))
    assert together == pytest.approx(measured["1"]["norm"], rel=0.02)


@pytest.mark.parametrize("clip_c", [2.0, 4.0, math.inf])
@pytest.mark.parametrize("ratio", [0.003, 0.02, 5.0, 80.0])
def test_the_predicted_time_is_that_of_the_recursion(ratio: float, clip_c: float) -> None:
    """||x||² -> (1 - ηλ)²||x||² + η²||g||² with ||g|| = min(1/||x||, the threshold), in units of the equilibrium."""
    product, steps = 0.004, 0
    lr, weight_decay = 1.0, product
    sigma = math.sqrt(weight_decay * (2 - product) / lr)  # of an equilibrium at norm 1
    x = ratio
    if clip_c == math.inf and ratio < 1:
        x = math.sqrt((1 - product) ** 2 * x**2 + (lr * sigma / x) ** 2)
    while not 1 / NEAR <= x <= NEAR:
        g = min(sigma / x, math.sqrt(2 * clip_c * weight_decay / lr) * x)
        x, steps = math.sqrt((1 - product) ** 2 * x**2 + lr**2 * g**2), steps + 1
    assert predicted_steps(ratio, product, clip_c) == pytest.approx(steps, rel=0.05, abs=6)
