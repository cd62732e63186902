"""The audit of sentence pairs: predictions are counted against a pair's own tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocessing.__main__ import training_loader
from preprocessing.audit.audit import audit, table
from preprocessing.audit.pairs import PairMasks
from preprocessing.corpus.reader import MASK_ID, SEP_ID, Corpus
from tests.helpers.audited_corpora import look


def pair_masks(lengths: Sequence[int], predictions: Sequence[int], seq_len: int = 40) -> PairMasks:
    """One batch of pairs of so many tokens, of which the first are predicted; what is no token is padding."""
    inputs_BL = np.zeros((len(lengths), seq_len), np.int64)
    P = max(predictions)
    positions_BP, labels_BP = np.tile(np.arange(1, P + 1), (len(lengths), 1)), np.full((len(lengths), P), 77)
    for row_L, length, n in zip(inputs_BL, lengths, predictions, strict=True):
        row_L[1 : length + 1] = 99
        row_L[1 : n + 1] = MASK_ID
        row_L[[0, length + 1]] = SEP_ID
    weights_BP = (np.arange(P) < np.array(predictions)[:, None]).astype(np.float32)
    found = PairMasks()
    found.add(inputs_BL, positions_BP, labels_BP, weights_BP)
    return found


def test_predictions_of_pairs_are_counted_against_their_own_tokens() -> None:
    fair = pair_masks([38, 20, 10, 2], [6, 3, 2, 1])
    assert (fair.ordinary, fair.predicted, fair.expected) == (70, 12, 12)
    assert fair.figures()["predicted_share"] == pytest.approx(12 / 70)
    padded = pair_masks([38, 20, 10, 2], [6, 6, 6, 2])  # as many as a full sequence has
    assert (padded.predicted, padded.expected, padded.over_half) == (20, 12, 2)
    assert padded.figures()["predicted_share_mean"] == pytest.approx((6 / 38 + 6 / 20 + 6 / 10 + 1) / 4)


@pytest.mark.parametrize("seq_len", [128, 512])
def test_padded_pairs_have_their_share_of_predictions(sound: Path, seq_len: int) -> None:
    """Real text, whose documents end long before a sequence is full."""
    found = look(sound, seq_len=seq_len)
    (check,) = (check for check in found.checks if check.name == "pairs: predictions")
    assert check.passed, check.found
    assert found.figures["pairs"]["predicted_share"] == pytest.approx(0.15, rel=0.05)


def test_pairs_that_no_loader_makes_are_no_fault(sound: Path) -> None:
    def without_pairs(corpus: Corpus, objective: Any, *arguments: Any) -> Any:
        if objective == "mlm+nsp":
            raise ValueError("one document")
        return training_loader(corpus, objective, *arguments)

    found = audit(sound, without_pairs, positions=5000)
    assert found.passed
    assert "no pairs: one document" in table(found)
