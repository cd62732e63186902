"""Rare tokens are what row normalisation helps most; rows grow with a root of their tokens' frequency."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config.load import load_recipe
from pipeline.experiments.heavy_tails.experiment import ADAMW, QUICK, ROWS, SGD, WHOLE
from pipeline.experiments.heavy_tails.rows import exponents
from pipeline.experiments.heavy_tails.whole_matrix import without_row_normalisation
from pipeline.experiments.trial import Trial, batches_of, starting_model
from preprocessing.corpus.reader import open_corpus
from tests.pipeline.experiments.conftest import Quick


@pytest.fixture(scope="module")
def measured(quick: Quick) -> dict[str, Any]:
    return quick("heavy-tails")["measured"]


@pytest.fixture(scope="module")
def last(measured: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {arm: curve[-1] for arm, curve in measured["curves"].items()}


def test_row_normalisation_helps_the_rare_tokens_most(last: dict[str, dict[str, float]]) -> None:
    gap = {third: last[WHOLE][third] - last[ROWS][third] for third in ("frequent", "rare")}
    assert gap["rare"] > 0.1
    assert gap["rare"] > 1.5 * gap["frequent"]


def test_bert_needs_adam_and_sibert_does_not(last: dict[str, dict[str, float]]) -> None:
    assert last[ADAMW]["all"] < last[SGD]["all"] - 0.05
    assert abs(last[SGD]["frequent"]) < 0.1, "at the unigram model's loss"
    assert last[ROWS]["all"] < last[ADAMW]["all"] - 0.1
    assert last[ROWS]["rare"] < last[ADAMW]["rare"] - 0.1


def test_rows_grow_with_a_root_of_the_frequency(measured: dict[str, Any]) -> None:
    """The fourth root of it where σ² is proportional to it, and of σ² always."""
    of = measured["exponents"]
    assert of["norm_frequent"] == pytest.approx(0.25, abs=0.09)
    assert of["norm_frequent"] == pytest.approx(of["sigma_square_frequent"] / 4, abs=0.06)
    assert of["correlation"] > 0.4


def test_exponents_of_made_up_rows() -> None:
    counts = np.concatenate([np.full(5, 10**6), np.arange(1, 400)])
    rows = {"rows": list(3 * (counts + 0.0) ** 0.3), "sigma_squares": list(7 * (counts + 0.0) ** 1.2)}
    found = exponents([rows, rows], counts)
    assert (found["norm"], found["norm_rare"], found["norm_frequent"]) == pytest.approx((0.3, 0.3, 0.3))
    assert found["sigma_square"] == pytest.approx(1.2)
    assert found["correlation"] == pytest.approx(1)


def test_the_matrix_as_a_whole_is_scale_invariant_and_its_rows_are_not(corpus: Path) -> None:
    config = load_recipe("tiny", QUICK)
    opened, device = open_corpus(corpus), torch.device("cpu")
    batches = batches_of(opened, config, device)
    change = partial(without_row_normalisation, config.model)
    model = starting_model(Trial("", config), opened, device, batches, change).double()
    batch, weight = next(batches(0)), model.encoder.embedding.token.weight
    with torch.no_grad():
        loss = model(batch).loss.item()
        weight.mul_(1e3)
        assert model(batch).loss.item() == pytest.approx(loss, rel=1e-9)
        weight[::2] *= 2
        assert abs(model(batch).loss.item() - loss) > 1e-3
