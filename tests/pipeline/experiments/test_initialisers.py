"""The initialisers, quickly: what depth amplifies, how GradInit takes its step, and which start trains without warm-up."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.experiments.initialisers.experiment import QUICK, growth

DEPTHS = QUICK.amplified_layers


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> dict[str, Any]:
    """By the command line, as a user has it."""
    from pipeline.__main__ import main

    out = tmp_path_factory.mktemp("initialisers")
    assert main(["experiment", "initialisers", "--quick", "--data", str(corpus), "--out", str(out)]) == 0
    assert (out / "picture.png").read_bytes().startswith(b"\x89PNG")
    found: dict[str, Any] = json.loads((out / "result.json").read_text(encoding="utf-8"))
    return found


def test_depth_amplifies_post_norm_linearly_and_admin_as_pre_norm(result: dict[str, Any]) -> None:
    of = result["measured"]["amplification"]["1"]
    assert of["Admin"] == pytest.approx(of["Pre-LN"], rel=0.15)
    assert of["Post-LN"][-1] > 3 * of["Admin"][-1]
    grows = {wiring: growth(QUICK, values) for wiring, values in of.items()}
    assert grows["Post-LN"] > 1
    assert max(grows["Admin"], grows["Pre-LN"], grows["SIBERT-A"]) < 0.75
    assert of["SIBERT-D"][-1] < of["Admin"][-1], "its branches are a quarter of the stream"


def test_the_step_is_a_constant_for_the_search(result: dict[str, Any]) -> None:
    """-16.2 is what differentiating through it gives."""
    assert result["measured"]["slope"] == pytest.approx(-18.0, rel=1e-5)


def test_what_the_starts_found(result: dict[str, Any]) -> None:
    (layers,), (rate,) = QUICK.trained_layers, QUICK.rates
    trainings = result["measured"]["trainings"]
    omega = list(trainings[f"{layers} layers, admin, {rate:g}"]["multipliers"].values())
    assert omega == sorted(omega)
    assert (omega[0], len(omega)) == (1, 2 * layers)
    assert omega[-1] > 2
    gradinit = trainings[f"{layers} layers, gradinit, {rate:g}"]
    assert max(abs(m - 1) for m in gradinit["multipliers"].values()) > 0.03
    assert gradinit["start"]["iterations"] > 2 * gradinit["start"]["constrained"]


def test_either_start_trains_better_without_warm_up_and_sibert_better_still(result: dict[str, Any]) -> None:
    (layers,), (rate,) = QUICK.trained_layers, QUICK.rates
    losses = {name: of["heldout_loss"] for name, of in result["measured"]["trainings"].items()}
    normal, admin, gradinit = (losses[f"{layers} layers, {init}, {rate:g}"] for init in ("normal", "admin", "gradinit"))
    assert max(admin, gradinit) < normal
    assert losses[f"{layers} layers, SIBERT"] < min(admin, gradinit) - 0.2
