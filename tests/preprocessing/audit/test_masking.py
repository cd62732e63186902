"""Damage to the masking: each kind fails the check of the audit that is meant for it, alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data import masking
from pipeline.data.batch import Batch
from pipeline.data.pretraining import PretrainingData
from preprocessing.audit.page import page
from preprocessing.corpus.reader import FIRST_ORDINARY_ID, MASK_ID, SEP_ID
from tests.helpers.audited_corpora import failures, look

Patch = Callable[[pytest.MonkeyPatch], None]
real_mask_tokens, real_samples = masking.mask_tokens, PretrainingData._samples


def mask_tokens_with(change: Callable[..., tuple[np.ndarray, ...]]) -> Patch:
    return lambda patch: patch.setattr(masking, "mask_tokens", change)


def masks_specials(tokens_BL: np.ndarray, *arguments: Any) -> tuple[np.ndarray, ...]:
    disguised_BL = np.where(tokens_BL == SEP_ID, 5, tokens_BL)
    disguised_BL[:, [0, -1]] = tokens_BL[:, [0, -1]]
    inputs_BL, positions_BP, _, weights_BP = real_mask_tokens(disguised_BL, *arguments)
    predicted_BL = np.zeros(tokens_BL.shape, bool)
    np.put_along_axis(predicted_BL, positions_BP, True, axis=1)
    inputs_BL[~predicted_BL] = tokens_BL[~predicted_BL]
    return inputs_BL, positions_BP, np.take_along_axis(tokens_BL, positions_BP, axis=1), weights_BP


def draws_half(tokens: np.ndarray, uniforms: np.ndarray, P: int, V: int, *rest: int) -> tuple[np.ndarray, ...]:
    return real_mask_tokens(tokens, uniforms, P, (V + FIRST_ORDINARY_ID) // 2, *rest)


def draws_even_ids(tokens: np.ndarray, *arguments: Any) -> tuple[np.ndarray, ...]:
    inputs_BL, positions_BP, labels_BP, weights_BP = real_mask_tokens(tokens, *arguments)
    shown_BP = np.take_along_axis(inputs_BL, positions_BP, axis=1)
    is_drawn_BP = (shown_BP != MASK_ID) & (shown_BP != labels_BP) & (shown_BP > FIRST_ORDINARY_ID)
    np.put_along_axis(inputs_BL, positions_BP, np.where(is_drawn_BP, shown_BP // 2 * 2, shown_BP), axis=1)
    return inputs_BL, positions_BP, labels_BP, weights_BP


def draws_specials(tokens: np.ndarray, *arguments: Any) -> tuple[np.ndarray, ...]:
    inputs_BL, positions_BP, labels_BP, weights_BP = real_mask_tokens(tokens, *arguments)
    shown_BP = np.take_along_axis(inputs_BL, positions_BP, axis=1)
    is_drawn_BP = (shown_BP != MASK_ID) & (shown_BP != labels_BP) & (shown_BP == 300)
    np.put_along_axis(inputs_BL, positions_BP, np.where(is_drawn_BP, SEP_ID, shown_BP), axis=1)
    return inputs_BL, positions_BP, labels_BP, weights_BP


def prefers_the_front(tokens: np.ndarray, uniforms: np.ndarray, *arguments: int) -> tuple[np.ndarray, ...]:
    skewed = uniforms.copy()
    skewed[:, : tokens.shape[1] // 2] *= 0.8
    return real_mask_tokens(tokens, skewed, *arguments)


def wrong_labels(tokens: np.ndarray, *arguments: Any) -> tuple[np.ndarray, ...]:
    inputs_BL, positions_BP, labels_BP, weights_BP = real_mask_tokens(tokens, *arguments)
    labels_BP[0, 0] = labels_BP[0, 0] - 1 if labels_BP[0, 0] > FIRST_ORDINARY_ID else FIRST_ORDINARY_ID + 1
    return inputs_BL, positions_BP, labels_BP, weights_BP


def touches_the_rest(tokens: np.ndarray, *arguments: Any) -> tuple[np.ndarray, ...]:
    inputs_BL, positions_BP, labels_BP, weights_BP = real_mask_tokens(tokens, *arguments)
    inputs_BL[0, -1] = 99
    return inputs_BL, positions_BP, labels_BP, weights_BP


def reads_the_first_quarter(data: PretrainingData, epoch_B: np.ndarray, sample_B: np.ndarray) -> Batch:
    quarter = data.n_samples // 4
    return real_samples(data, epoch_B * 5 + sample_B // quarter, sample_B % quarter)


MASKINGS: dict[str, tuple[Patch, set[str]]] = {
    "masks 85%": (lambda patch: patch.setattr(masking, "P_MASK", 0.85), {"80 / 10 / 10"}),
    "draws 15%": (lambda patch: patch.setattr(masking, "P_RANDOM", 0.15), {"80 / 10 / 10"}),
    "predicts specials": (  # and so more than the share of what is ordinary
        mask_tokens_with(masks_specials),
        {"no special piece is predicted", "predictions of a sequence", "pairs: predictions"},
    ),
    "draws specials": (mask_tokens_with(draws_specials), {"no special piece is drawn"}),
    "draws half of the vocabulary": (
        mask_tokens_with(draws_half),
        {"drawn ids are uniform", "every ordinary id is reachable", "lowest and highest drawn id"},
    ),
    "draws even ids": (mask_tokens_with(draws_even_ids), {"every ordinary id is reachable"}),
    "prefers the front": (mask_tokens_with(prefers_the_front), {"positions are uniform"}),
    "wrong labels": (mask_tokens_with(wrong_labels), {"labels are the text"}),
    "changes what is not predicted": (mask_tokens_with(touches_the_rest), {"labels are the text"}),
    "predicts too little": (
        lambda patch: patch.setattr(masking, "predictions_per_sequence", lambda *_: 10),
        {"predictions of a sequence", "pairs: predictions"},
    ),
    "reads one source only": (
        lambda patch: patch.setattr(PretrainingData, "_samples", reads_the_first_quarter),
        {"sources' shares of the samples"},
    ),
}


@pytest.mark.parametrize("kind", MASKINGS)
def test_a_wrong_masking_fails_its_check(sound: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    patch, expected = MASKINGS[kind]
    patch(monkeypatch)
    assert failures(look(sound)) == {name if name.startswith("pairs: ") else f"masking: {name}" for name in expected}


def test_a_train_split_too_small_for_a_sequence_fails_as_the_loader(sound: Path) -> None:
    found = look(sound, seq_len=1_000_000)
    assert failures(found) == {"masking: the loader"}
    assert page(found)
