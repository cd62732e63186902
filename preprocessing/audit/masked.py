"""What batches show of the masking: counts, added up batch by batch.

The shares that masking ought to have are written down here again, from the paper, not read from `pipeline.data.masking`.
Shapes: B samples, L tokens of a sequence, W of them between [CLS] and [SEP], P predictions of a sequence, V pieces.
"""

from dataclasses import dataclass

import numpy as np

from preprocessing.corpus.reader import CLS_ID, FIRST_ORDINARY_ID, MASK_ID, SEP_ID

MASK_FRACTION = 0.15  # Devlin et al. 2019, section 3.1, and the two shares as well
P_MASK, P_RANDOM = 0.8, 0.1


@dataclass
class Masked:
    """What the batches showed. A prediction is a slot of weight 1; `drawn` are inputs that are neither [MASK] nor the label.

    More attributes than usual, because each is one sum of what the checks judge.
    """

    seq_len: int
    vocab_size: int
    epoch_samples: int  # as the loader has it
    sequences: int = 0
    predictions: int = 0
    specials_predicted: int = 0
    improper_draws: int = 0  # special pieces, or no pieces
    masks: int = 0
    draws: int = 0
    kept: int = 0
    wrong_counts: int = 0  # sequences with more or fewer predictions than they should have
    wrong_frames: int = 0  # sequences that do not begin with [CLS] and end with [SEP]

    def __post_init__(self) -> None:
        L, V = self.seq_len, self.vocab_size
        self.predicted_L, self.expected_L, self.variance_L = np.zeros(L), np.zeros(L), np.zeros(L)
        self.drawn_V, self.drawn_for_V = np.zeros(V, np.int64), np.zeros(V, np.int64)
        self.hashes: list[np.ndarray] = []  # of the rows put together again
        self.weights_W = np.random.default_rng(0).integers(0, 1 << 64, L - 2, dtype=np.uint64) | np.uint64(1)

    def add(self, inputs_BL: np.ndarray, positions_BP: np.ndarray, labels_BP: np.ndarray, weights_BP: np.ndarray) -> None:
        """Count a batch (see pipeline.data.batch.Batch)."""
        is_real_BP = weights_BP == 1
        row, _ = np.nonzero(is_real_BP)
        position, label = positions_BP[is_real_BP], labels_BP[is_real_BP]
        shown = inputs_BL[row, position]
        tokens_BL = inputs_BL.copy()
        tokens_BL[row, position] = label
        self.sequences += len(tokens_BL)
        self.wrong_frames += int(((tokens_BL[:, 0] != CLS_ID) | (tokens_BL[:, -1] != SEP_ID)).sum())
        self.hashes.append(tokens_BL[:, 1:-1].astype(np.uint64) @ self.weights_W)
        self._add_positions(tokens_BL, positions_BP, is_real_BP)
        self._add_shown(shown, label)

    def _add_positions(self, tokens_BL: np.ndarray, positions_BP: np.ndarray, is_real_BP: np.ndarray) -> None:
        """Given how many of a sequence's ordinary positions are predicted, each is with the same probability."""
        ordinary_BL = tokens_BL >= FIRST_ORDINARY_ID
        ordinary_BL[:, [0, -1]] = False
        wanted_B = predictions_wanted(ordinary_BL.sum(axis=1), self.seq_len)
        chosen_BL = np.zeros_like(ordinary_BL)
        row, _ = np.nonzero(is_real_BP)
        chosen_BL[row, positions_BP[is_real_BP]] = True
        distinct_B = chosen_BL.sum(axis=1)
        self.wrong_counts += int(((distinct_B != wanted_B) | (is_real_BP.sum(axis=1) != wanted_B)).sum())
        chosen_BL &= ordinary_BL
        p_B = chosen_BL.sum(axis=1) / np.maximum(1, ordinary_BL.sum(axis=1))
        self.predicted_L += chosen_BL.sum(axis=0)
        self.expected_L += p_B @ ordinary_BL
        self.variance_L += (p_B * (1 - p_B)) @ ordinary_BL

    def _add_shown(self, shown: np.ndarray, label: np.ndarray) -> None:
        self.predictions += len(label)
        is_ordinary = label >= FIRST_ORDINARY_ID
        self.specials_predicted += int((~is_ordinary).sum())
        shown, label = shown[is_ordinary], label[is_ordinary]
        is_mask, is_kept = shown == MASK_ID, shown == label
        is_drawn = ~is_mask & ~is_kept
        self.masks, self.kept = self.masks + int(is_mask.sum()), self.kept + int(is_kept.sum())
        self.draws += int(is_drawn.sum())
        is_proper = (shown >= FIRST_ORDINARY_ID) & (shown < self.vocab_size)
        self.improper_draws += int((is_drawn & ~is_proper).sum())
        is_drawn &= is_proper & (label < self.vocab_size)
        self.drawn_V += np.bincount(shown[is_drawn], minlength=self.vocab_size)
        self.drawn_for_V += np.bincount(label[is_drawn], minlength=self.vocab_size)


def shares_expected(vocab_size: int) -> dict[str, float]:
    """What can be seen at a predicted position: a random token that happens to be the label looks kept."""
    seen = P_RANDOM * (1 - 1 / (vocab_size - FIRST_ORDINARY_ID))
    return {"[MASK]": P_MASK, "another token": seen, "the token itself": 1 - P_MASK - seen}


def predictions_per_sequence(seq_len: int) -> int:
    """15% of the positions between [CLS] and the last [SEP], at least one: of a sequence that is full of ordinary tokens."""
    return max(1, round(MASK_FRACTION * (seq_len - 2)))


def predictions_wanted(ordinary_B: np.ndarray, seq_len: int) -> np.ndarray:
    """15% of the ordinary tokens that each sequence has, at least one where it has one."""
    wanted_B = np.rint(MASK_FRACTION * ordinary_B).clip(1, predictions_per_sequence(seq_len))
    return np.minimum(wanted_B, ordinary_B).astype(np.int64)
