"""Masking: the random streams are numpy's Philox, the choice is BERT's, and its statistics are right."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.masking import (
    MASKING,
    SENTENCE_PAIRS,
    mask_tokens,
    predictions_per_sequence,
    sample_uniforms,
    uniforms_per_sequence,
)

MASK, FIRST = 4, 5


def assert_binomial(hits: int, trials: int, p: float) -> None:
    """`hits` lies within 4.5 standard deviations of its mean (a right program fails once in 150 000 seeds)."""
    deviation = (hits - trials * p) / math.sqrt(trials * p * (1 - p))
    assert abs(deviation) < 4.5, f"{hits} of {trials}, expected {trials * p:.0f}: {deviation:.1f} standard deviations"


def reference_mask(
    tokens: list[int], uniforms: list[float], P: int, vocab_size: int, fraction: float = 1.0
) -> tuple[list, list, list, list]:
    """The readable twin of `mask_tokens`, one sequence in plain Python."""
    L = len(tokens)
    rank, action, draw = uniforms[:L], uniforms[L : L + P], uniforms[L + P :]
    ordinary = [i for i in range(L) if tokens[i] >= FIRST]
    wanted = min(P, max(1, round(fraction * len(ordinary))))
    positions = sorted(sorted(ordinary, key=lambda i: rank[i])[:wanted])
    inputs, labels = list(tokens), []
    for slot, i in enumerate(positions):
        labels.append(tokens[i])
        if action[slot] < 0.8:
            inputs[i] = MASK
        elif action[slot] < 0.9:
            inputs[i] = FIRST + int(draw[slot] * (vocab_size - FIRST))
    surplus = [0] * (P - len(positions))
    return inputs, positions + surplus, labels + surplus, [1.0] * len(positions) + [0.0] * len(surplus)


def uniforms(n_samples: int, L: int, P: int, seed: int = 0, epoch: int = 0) -> np.ndarray:
    sample_B = np.arange(n_samples)
    return sample_uniforms(seed, np.full(n_samples, epoch), sample_B, MASKING, uniforms_per_sequence(L, P))


# --- streams


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, (1 << 64) - 1),
    epochs=st.lists(st.integers(0, (1 << 63) - 1), min_size=3, max_size=3),
    samples=st.lists(st.integers(0, (1 << 63) - 1), min_size=3, max_size=3),
    purpose=st.sampled_from([MASKING, SENTENCE_PAIRS]),
    n=st.integers(0, 40),
)
def test_streams_are_numpys_philox(seed: int, epochs: list[int], samples: list[int], purpose: int, n: int) -> None:
    rows_BU = sample_uniforms(seed, np.array(epochs), np.array(samples), purpose, n)
    assert rows_BU.shape == (3, n)
    for row_U, epoch, sample in zip(rows_BU, epochs, samples, strict=True):
        key = np.array([seed, epoch], dtype=np.uint64)
        counter = np.array([0, 0, purpose, sample], dtype=np.uint64)
        expected_U = np.random.Generator(np.random.Philox(key=key, counter=counter)).random(n)
        assert np.array_equal(row_U, expected_U)


def test_streams_differ_in_every_part_of_their_name() -> None:
    one = np.ones(1, dtype=np.int64)
    streams = [
        sample_uniforms(1, one, one, MASKING, 64)[0],
        sample_uniforms(2, one, one, MASKING, 64)[0],
        sample_uniforms(1, one * 2, one, MASKING, 64)[0],
        sample_uniforms(1, one, one * 2, MASKING, 64)[0],
        sample_uniforms(1, one, one, SENTENCE_PAIRS, 64)[0],
    ]
    numbers = np.concatenate(streams)
    assert len(np.unique(numbers)) == len(numbers)


def test_bad_streams() -> None:
    one = np.ones(1, dtype=np.int64)
    with pytest.raises(ValueError, match="seed: got -1"):
        sample_uniforms(-1, one, one, MASKING, 1)
    with pytest.raises(ValueError, match="none below 0"):
        sample_uniforms(1, -one, one, MASKING, 1)
    with pytest.raises(ValueError, match="none below 0"):
        sample_uniforms(1, one, -one, MASKING, 1)


# --- how many


def test_predictions_per_sequence() -> None:
    assert [predictions_per_sequence(L) for L in (3, 8, 64, 128, 512)] == [1, 1, 9, 19, 76]
    assert predictions_per_sequence(128, 0.4) == 50
    with pytest.raises(ValueError, match="seq_len: got 2"):
        predictions_per_sequence(2)
    for fraction in (0.0, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="mask_fraction: got"):
            predictions_per_sequence(128, fraction)


# --- which


@settings(max_examples=150, deadline=None)
@given(data=st.data(), L=st.integers(1, 24), seed=st.integers(0, 1 << 30), vocab_size=st.integers(6, 12))
def test_equals_the_readable_reference(data: st.DataObject, L: int, seed: int, vocab_size: int) -> None:
    """Also in sequences with few ordinary tokens, or none."""
    P = data.draw(st.integers(1, L))
    lowest = data.draw(st.sampled_from([0, 0, 4, 5]))
    row = st.lists(st.integers(lowest, vocab_size - 1), min_size=L, max_size=L)
    tokens_BL = np.array(data.draw(st.lists(row, min_size=2, max_size=2)), dtype=np.uint16)
    uniforms_BU = uniforms(2, L, P, seed)
    fraction = data.draw(st.sampled_from([0.15, 0.3, 1.0]))
    masked = mask_tokens(tokens_BL, uniforms_BU, P, vocab_size, MASK, FIRST, fraction)
    inputs_BL, positions_BP, labels_BP, weights_BP = masked
    assert [x.dtype for x in (inputs_BL, positions_BP, labels_BP)] == [np.int64] * 3
    assert weights_BP.dtype == np.float32
    for b in range(2):
        expected = reference_mask(tokens_BL[b].tolist(), uniforms_BU[b].tolist(), P, vocab_size, fraction)
        assert inputs_BL[b].tolist() == expected[0]
        assert positions_BP[b].tolist() == expected[1]
        assert labels_BP[b].tolist() == expected[2]
        assert weights_BP[b].tolist() == expected[3]


def test_short_sequences_have_surplus_slots_of_weight_0() -> None:
    tokens_BL = np.array([[2, 3, 0, 0, 0, 0], [2, 9, 3, 8, 3, 0], [9, 9, 9, 9, 9, 9]])
    inputs_BL, positions_BP, labels_BP, weights_BP = mask_tokens(tokens_BL, uniforms(3, 6, 4), 4, 10, MASK, FIRST, 1.0)
    assert weights_BP.tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    assert positions_BP[:2].tolist() == [[0, 0, 0, 0], [1, 3, 0, 0]]
    assert labels_BP.tolist() == [[0, 0, 0, 0], [9, 8, 0, 0], [9, 9, 9, 9]]
    assert inputs_BL[0].tolist() == tokens_BL[0].tolist()
    assert inputs_BL[1, [0, 2, 4, 5]].tolist() == [2, 3, 3, 0]


def test_statistics_over_100_000_positions() -> None:
    """80 / 10 / 10; exactly P a sequence; specials untouched; every position and every ordinary id evenly."""
    B, L, P, vocab_size = 5000, 128, 19, 45
    rng = np.random.default_rng(0)
    tokens_BL = rng.integers(FIRST, vocab_size, (B, L))
    tokens_BL[:, 0], tokens_BL[:, 60], tokens_BL[:, 61], tokens_BL[:, -1] = 2, 3, 1, 3
    inputs_BL, positions_BP, labels_BP, weights_BP = mask_tokens(tokens_BL, uniforms(B, L, P), P, vocab_size, MASK, FIRST, 1.0)
    trials = B * P
    assert weights_BP.sum() == trials
    assert (np.diff(positions_BP, axis=1) > 0).all(), "positions ascend, so they are distinct"
    assert np.array_equal(labels_BP, np.take_along_axis(tokens_BL, positions_BP, 1))
    is_chosen_BL = np.zeros((B, L), dtype=bool)
    np.put_along_axis(is_chosen_BL, positions_BP, True, axis=1)
    assert np.array_equal(inputs_BL[~is_chosen_BL], tokens_BL[~is_chosen_BL]), "nothing else changes"
    assert not is_chosen_BL[tokens_BL < FIRST].any(), "a special token was chosen"

    shown_BP = np.take_along_axis(inputs_BL, positions_BP, 1)
    n_masked, n_same = int((shown_BP == MASK).sum()), int((shown_BP == labels_BP).sum())
    n_ids = vocab_size - FIRST
    assert_binomial(n_masked, trials, 0.8)
    assert_binomial(n_same, trials, 0.1 + 0.1 / n_ids)  # kept, or drawn as itself
    random_ids = shown_BP[(shown_BP != MASK) & (shown_BP != labels_BP)]
    assert_binomial(len(random_ids), trials, 0.1 * (1 - 1 / n_ids))
    counts = np.bincount(random_ids, minlength=vocab_size)
    assert counts[:FIRST].sum() == 0, "a special token was drawn"
    for id_ in range(FIRST, vocab_size):
        assert_binomial(int(counts[id_]), len(random_ids), 1 / n_ids)

    ordinary_L = (tokens_BL >= FIRST).all(axis=0)
    for position in np.flatnonzero(ordinary_L):
        assert_binomial(int(is_chosen_BL[:, position].sum()), B, P / ordinary_L.sum())
    is_shown_mask_BP = shown_BP == MASK  # what is done does not depend on where: thirds of the slots alike
    for third_BP in np.array_split(is_shown_mask_BP, 3, axis=1):
        assert_binomial(int(third_BP.sum()), third_BP.size, 0.8)


@pytest.mark.parametrize(("L", "fraction"), [(128, 0.15), (512, 0.15), (512, 0.3)])
def test_padding_and_separators_do_not_make_the_rest_harder(L: int, fraction: float) -> None:
    """Of every row the fraction of its ordinary tokens is predicted, to the nearest whole number; at least one."""
    B, P = 400, predictions_per_sequence(L, fraction)
    rng = np.random.default_rng(0)
    tokens_BL = rng.integers(FIRST, 50, (B, L))
    length_B = rng.integers(4, L + 1, B)
    tokens_BL[np.arange(L) >= length_B[:, None]] = 0
    tokens_BL[rng.random((B, L)) < 0.1] = 3
    _, _, _, weights_BP = mask_tokens(tokens_BL, uniforms(B, L, P), P, 50, MASK, FIRST, fraction)
    ordinary_B = (tokens_BL >= FIRST).sum(axis=1)
    expected = [min(n, max(1, min(P, round(fraction * n)))) for n in ordinary_B.tolist()]
    assert weights_BP.sum(axis=1).tolist() == expected
    assert abs(weights_BP.sum() / ordinary_B.sum() - fraction) < 0.02 * fraction
    assert min(expected) < P // 4
    assert max(expected) > 3 * P // 4


def test_fewer_predictions_are_the_first_of_more() -> None:
    """Which positions are chosen does not depend on how many are."""
    tokens_BL = np.random.default_rng(1).integers(FIRST, 50, (16, 32))
    numbers = uniforms(16, 32, 8)
    few, many = (mask_tokens(tokens_BL, numbers, 8, 50, MASK, FIRST, fraction) for fraction in (0.1, 0.25))
    for b in range(16):
        assert set(few[1][b][few[3][b] > 0]) < set(many[1][b][many[3][b] > 0])


def test_pairs_of_positions_are_uniform() -> None:
    """P = 2 of 6 ordinary positions: all 15 pairs alike, so positions are chosen together, not one by one."""
    B = 6000
    tokens_BL = np.full((B, 8), 9)
    tokens_BL[:, 0], tokens_BL[:, -1] = 2, 3
    _, positions_BP, _, _ = mask_tokens(tokens_BL, uniforms(B, 8, 2), 2, 10, MASK, FIRST, 1.0)
    pairs, counts = np.unique(positions_BP, axis=0, return_counts=True)
    assert len(pairs) == 15
    for count in counts:
        assert_binomial(int(count), B, 1 / 15)


def test_a_row_does_not_depend_on_its_batch() -> None:
    tokens_BL = np.random.default_rng(1).integers(FIRST, 50, (16, 32))
    uniforms_BU = uniforms(16, 32, 5)
    together = mask_tokens(tokens_BL, uniforms_BU, 5, 50, MASK, FIRST, 1.0)
    for b in range(16):
        alone = mask_tokens(tokens_BL[b : b + 1], uniforms_BU[b : b + 1], 5, 50, MASK, FIRST, 1.0)
        assert all(np.array_equal(one[0], all_[b]) for one, all_ in zip(alone, together, strict=True))


def test_golden_values() -> None:
    """A change here changes the masks of every unfinished run."""
    tokens_BL = np.arange(10, 26)[None]
    inputs_BL, positions_BP, _, _ = mask_tokens(tokens_BL, uniforms(1, 16, 6, 3, 1), 6, 50, MASK, FIRST, 1.0)
    assert positions_BP.tolist() == [[3, 5, 6, 7, 8, 9]]
    assert inputs_BL.tolist() == [[10, 11, 12, 28, 14, 4, 4, 4, 18, 4, 20, 21, 22, 23, 24, 25]]


def test_the_argument_is_not_changed() -> None:
    tokens_BL = np.full((2, 8), 9)
    mask_tokens(tokens_BL, uniforms(2, 8, 4), 4, 10, MASK, FIRST, 1.0)
    assert (tokens_BL == 9).all()


def test_bad_input() -> None:
    tokens_BL = np.full((2, 8), 9)
    with pytest.raises(ValueError, match="n_predictions: got 9"):
        mask_tokens(tokens_BL, uniforms(2, 8, 9), 9, 10, MASK, FIRST, 1.0)
    with pytest.raises(ValueError, match="n_predictions: got 0"):
        mask_tokens(tokens_BL, uniforms(2, 8, 0), 0, 10, MASK, FIRST, 1.0)
    with pytest.raises(ValueError, match="vocab_size: got 5"):
        mask_tokens(tokens_BL, uniforms(2, 8, 2), 2, 5, MASK, FIRST, 1.0)
    with pytest.raises(ValueError, match=r"uniforms_BU: got \(2, 10\), expected \(2, 12\)"):
        mask_tokens(tokens_BL, np.zeros((2, 10)), 2, 10, MASK, FIRST, 1.0)
