"""The slides' examples, quickly: where divergence begins, who learns an unbalanced factorisation, and the exact exponent."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.experiments.toys.experiment import DEPTHS, LR, WEIGHT_DECAY
from pipeline.experiments.toys.factorisation import plain, scale_invariant
from pipeline.experiments.toys.product import MINIMISER, slope


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By the command line, as a user has it."""
    from pipeline.__main__ import main

    out = tmp_path_factory.mktemp("toys")
    assert main(["experiment", "toys", "--quick", "--out", str(out)]) == 0
    assert (out / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "table.md").read_text(encoding="utf-8").count("\n| ") >= 10
    return json.loads((out / "result.json").read_text(encoding="utf-8"))


def test_divergence_begins_at_the_bound_far_above_the_minimiser(result: dict[str, Any]) -> None:
    far = [of for of in result["measured"]["bound"] if of["start"] == 4.0]
    assert [of["k"] for of in far] == list(DEPTHS)
    for of in far:
        for multiple, loss in zip(of["multiples"], of["losses"], strict=True):
            assert (loss < of["first_loss"]) == (multiple < 1), f"k = {of['k']}: loss {loss} at {multiple} of the bound"


def test_above_the_bound_everything_diverges(result: dict[str, Any]) -> None:
    for of in result["measured"]["bound"]:
        above = [loss for multiple, loss in zip(of["multiples"], of["losses"], strict=True) if multiple > 1]
        assert len(above) >= 5
        assert min(above) >= of["first_loss"]


def test_only_the_scale_invariant_loss_with_decay_learns_from_every_start(result: dict[str, Any]) -> None:
    of = result["measured"]["factorisation"]
    for gd, adam, invariant, alpha in zip(of["gd"], of["adam"], of["scale_invariant"], of["alphas"], strict=True):
        assert invariant["steps"] is not None
        if alpha >= 100:
            assert gd["steps"] is None
            assert gd["loss"] > 0.2, "GD has hardly begun"
            assert adam["loss"] < 0.85 * gd["loss"], "Adam is on its way"


def test_the_steps_grow_with_the_logarithm_of_the_imbalance(result: dict[str, Any]) -> None:
    slope_measured = result["measured"]["factorisation"]["slope_per_decade"]
    assert slope_measured == pytest.approx(math.log(10) / (LR * WEIGHT_DECAY), rel=0.02)


def test_weight_decay_is_the_growing_rate_of_one_exponent(result: dict[str, Any]) -> None:
    differences = result["measured"]["equivalences"]["growing_rate"]
    assert differences["1"] < 1e-13
    assert min(differences["0"], differences["2"]) > 1e-3


def test_both_rescalings_hold_where_some_steps_are_clipped_and_others_not(result: dict[str, Any]) -> None:
    same = result["measured"]["equivalences"]
    assert 0 < same["clipped_steps"] < same["steps"]
    assert max(*same["scaled_loss"].values(), *same["scaled_start"].values()) < 1e-13


def test_gradients_are_derivatives() -> None:
    """By central differences, at a random place."""
    generator, h = np.random.default_rng(0), 1e-6
    a, b, target = generator.normal(size=(1, 2)), generator.normal(size=(1, 2)), generator.normal(size=(2, 2))
    for loss in (plain, scale_invariant):
        _, da, db = loss(a, b, target)
        for i in range(2):
            e = h * np.eye(2)[i : i + 1]
            assert (loss(a + e, b, target)[0] - loss(a - e, b, target)[0]) / (2 * h) == pytest.approx(da[:, i], rel=1e-6)
            assert (loss(a, b + e, target)[0] - loss(a, b - e, target)[0]) / (2 * h) == pytest.approx(db[:, i], rel=1e-6)


def test_the_minimiser_is_where_the_slope_is_0() -> None:
    assert slope(np.array(MINIMISER)) == pytest.approx(0, abs=1e-15)


def test_a_png_beside_and_the_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.__main__ import main
    from pipeline.verbs.experiment import EXPERIMENTS

    assert main(["experiment", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(EXPERIMENTS)
    assert all(module.COST in line for module, line in zip(EXPERIMENTS.values(), lines[1:], strict=True))
