"""The held-out figures against a count of every single prediction, and on several ranks."""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.config.load import load_recipe
from pipeline.data.pretraining import PretrainingData, heldout_data
from pipeline.model.build import build_model
from pipeline.model.pretraining import PretrainingModel
from pipeline.train.evaluate import evaluate
from pipeline.train.token_frequency import FrequencyBins, frequency_bins, sums, table
from preprocessing.corpus.reader import FIRST_ORDINARY_ID, MASK_ID, Corpus, open_corpus
from tests.helpers.running import SMALL


@pytest.fixture(scope="module")
def opened(little_corpus: Path) -> Corpus:
    return open_corpus(little_corpus)


@pytest.fixture(scope="module")
def data(opened: Corpus) -> PretrainingData:
    return heldout_data(opened, load_recipe("tiny", SMALL[1::2]))


@pytest.fixture(scope="module")
def model(opened: Corpus) -> PretrainingModel:
    torch.manual_seed(3)
    return build_model(load_recipe("tiny", SMALL[1::2]), opened.vocab_size, opened.unigram_counts("train"))


@pytest.fixture(scope="module")
def bins(opened: Corpus) -> FrequencyBins:
    return frequency_bins(opened.unigram_counts("train"))


@pytest.fixture(scope="module")
def figures(model: PretrainingModel, data: PretrainingData, bins: FrequencyBins) -> dict[str, Any]:
    found = evaluate(model, data, None, micro_sequences=4, bins=bins)
    assert found is not None
    return found


def test_every_prediction_is_counted_once_where_it_belongs(
    opened: Corpus, model: PretrainingModel, data: PretrainingData, figures: dict[str, Any]
) -> None:
    """One sequence at a time, with the unigram model and the bins made anew from the counts."""
    counts = opened.unigram_counts("train")
    ordinary = counts[FIRST_ORDINARY_ID:]
    cells: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for number in range(data.n_samples):
        batch = data.batch(np.array([number]))
        with torch.no_grad():
            losses = model(batch).token_loss_N.tolist()
        places, labels, weights = (part[0].tolist() for part in (batch.positions, batch.labels, batch.weights))
        for place, label, weight, loss in zip(places, labels, weights, losses, strict=True):
            if weight:
                shown = "mask" if batch.input_ids[0, place] == MASK_ID else "visible"
                row = next(
                    at
                    for at, row in enumerate(figures["heldout_by_frequency"]["bins"])
                    if row["fewest"] <= counts[label] <= row["most"]
                )
                cells[shown, row].append((loss, math.log((ordinary + 1).sum() / (counts[label] + 1))))
    assert len({shown for shown, _ in cells}) == 2
    shared = [row["fewest"] for row in figures["heldout_by_frequency"]["bins"][:-1]]
    following = [row["most"] for row in figures["heldout_by_frequency"]["bins"][1:]]
    apart = [a != b for a, b in zip(shared, following, strict=True)]
    for at, row in enumerate(figures["heldout_by_frequency"]["bins"]):
        if not all(apart[max(0, at - 1) : at + 1]):
            continue  # pieces of one count are on both sides of an edge: the count does not say where
        for shown in ("mask", "visible"):
            expected = np.array(cells[shown, at]).reshape(-1, 2)
            assert row[shown]["predictions"] == len(expected)
            if len(expected):
                assert row[shown]["loss"] == pytest.approx(expected[:, 0].mean(), rel=1e-5)
                assert row[shown]["unigram_loss"] == pytest.approx(expected[:, 1].mean(), rel=1e-9)
    assert sum(apart) >= len(apart) / 2
    for shown, keys in {"heldout_mask_loss": ["mask"], "heldout_visible_loss": ["visible"]}.items():
        all_of = [loss for (kind, _), losses in cells.items() for loss, _ in losses if kind in keys]
        assert figures[shown] == pytest.approx(np.mean(all_of), rel=1e-5)
    everything = [loss for losses in cells.values() for loss, _ in losses]
    assert figures["heldout_loss"] == pytest.approx(np.mean(everything), rel=1e-5)


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_together_have_the_figures_of_one(
    model: PretrainingModel, data: PretrainingData, bins: FrequencyBins, figures: dict[str, Any], ranks: int
) -> None:
    shares: list[Tensor] = []

    def keep(share: Tensor) -> Tensor:
        shares.append(share)
        return share

    for rank in range(ranks):
        evaluate(model, data, None, 4, rank, ranks, keep, bins=bins)
    together = evaluate(model, data, None, 4, 0, ranks, lambda own: torch.stack(shares).sum(0), bins=bins)
    assert together is not None
    ours, theirs = (found.pop("heldout_by_frequency")["bins"] for found in (together, dict(figures)))
    assert together == pytest.approx({k: v for k, v in figures.items() if k != "heldout_by_frequency"}, rel=1e-6)
    for our, their in zip(ours, theirs, strict=True):
        for shown in ("mask", "visible"):
            assert our[shown]["predictions"] == their[shown]["predictions"]
            if our[shown]["predictions"]:
                assert our[shown] == pytest.approx(their[shown], rel=1e-5)


def test_without_bins_there_is_no_table(model: PretrainingModel, data: PretrainingData) -> None:
    found = evaluate(model, data, 4, 4)
    assert found is not None
    assert "heldout_by_frequency" not in found


def test_bins_are_like_shares_of_the_text() -> None:
    counts = np.array([0, 0, 0, 99, 0, 1, 4, 2, 1, 2, 0, 50, 40])  # [SEP] is no share of what can be predicted
    bins = frequency_bins(counts, bins=5)
    # 50 lies on 0.0-0.5, 40 on 0.5-0.9, 4 on 0.9-0.94: middles 0.25, 0.7, 0.92, and the rest in the last one, too
    assert bins.bin_V.tolist() == [0] * 5 + [2, 2, 2, 2, 2, 2, 0, 1]
    assert bins.about == (
        {"pieces": 1, "fewest": 50, "most": 50},
        {"pieces": 1, "fewest": 40, "most": 40},
        {"pieces": 6, "fewest": 0, "most": 4},
    )
    assert bins.unigram_loss_V.exp()[FIRST_ORDINARY_ID:].reciprocal().sum().item() == pytest.approx(1)
    assert bins.unigram_loss_V[11].item() == pytest.approx(-math.log(51 / 108))


def test_ten_bins_of_the_real_vocabulary_are_tenths(corpus: Path) -> None:
    counts = open_corpus(corpus).unigram_counts("train")
    bins = frequency_bins(counts)
    share = np.bincount(bins.bin_V[FIRST_ORDINARY_ID:], counts[FIRST_ORDINARY_ID:]) / counts[FIRST_ORDINARY_ID:].sum()
    assert len(share) == 10
    assert share == pytest.approx(np.full(10, 0.1), abs=0.03)
    assert all(a["fewest"] >= b["most"] for a, b in zip(bins.about[:-1], bins.about[1:], strict=True))


def test_a_bin_without_predictions_or_with_a_loss_of_nan_has_none(data: PretrainingData, bins: FrequencyBins) -> None:
    batch = data.batch(np.arange(4))
    nothing = table(bins, torch.zeros(bins.n_sums))["bins"][0]["mask"]
    assert nothing == {"predictions": 0, "loss": None, "unigram_loss": None}
    rows = table(bins, sums(bins, batch, torch.full((batch.labels.numel(),), math.nan)))["bins"]
    assert {row["mask"]["loss"] for row in rows} == {None}
    assert sum(row["mask"]["predictions"] for row in rows) > 0
