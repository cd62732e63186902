"""Sentence pairs as training will see them: batches of the very loader that will read them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from preprocessing.audit.check import Check, Say
from preprocessing.audit.masked import MASK_FRACTION, predictions_per_sequence
from preprocessing.audit.masking import BATCH, MakeLoader
from preprocessing.corpus.limits import judge_not_next
from preprocessing.corpus.reader import FIRST_ORDINARY_ID, Corpus, Manifest

MASK_MARGIN = 0.02  # relative: whether a [SEP] or an [UNK] counts is within it, predictions for padding are not


@dataclass
class PairMasks:
    """How many ordinary tokens the pairs have, and how many of them are predicted."""

    ordinary: int = 0
    predicted: int = 0
    expected: int = 0
    pairs: int = 0
    shares: float = 0.0  # summed over the pairs
    over_half: int = 0

    def add(self, inputs_BL: np.ndarray, positions_BP: np.ndarray, labels_BP: np.ndarray, weights_BP: np.ndarray) -> None:
        """Count a batch (see pipeline.data.batch.Batch)."""
        is_real_BP = weights_BP == 1
        row, _ = np.nonzero(is_real_BP)
        tokens_BL = inputs_BL.copy()
        tokens_BL[row, positions_BP[is_real_BP]] = labels_BP[is_real_BP]
        ordinary_B = (tokens_BL >= FIRST_ORDINARY_ID).sum(axis=1)
        predicted_B = is_real_BP.sum(axis=1)
        share_B = predicted_B / np.maximum(1, ordinary_B)
        self.pairs += len(ordinary_B)
        self.ordinary += int(ordinary_B.sum())
        self.predicted += int(predicted_B.sum())
        self.expected += int(np.minimum(ordinary_B, np.maximum(1, np.rint(MASK_FRACTION * ordinary_B))).sum())
        self.shares += float(share_B.sum())
        self.over_half += int((share_B > 0.5).sum())

    def figures(self) -> dict[str, float]:
        """The shares of ordinary tokens that are predicted: of all, in the mean over pairs, and of how many pairs over half."""
        return {
            "predicted_share": self.predicted / max(1, self.ordinary),
            "predicted_share_mean": self.shares / max(1, self.pairs),
            "pairs_over_half_predicted": self.over_half / max(1, self.pairs),
        }


def _predicted(found: PairMasks, seq_len: int) -> Check:
    """A short pair has as many predictions as its own tokens call for, not as a full sequence does."""
    figures, wanted = found.figures(), found.expected / max(1, found.ordinary)
    return Check(
        "pairs: predictions",
        abs(found.predicted - found.expected) <= MASK_MARGIN * found.expected,
        f"{figures['predicted_share']:.2%} of all ordinary tokens, {figures['predicted_share_mean']:.2%} in the mean over "
        f"{found.pairs:,} pairs of {seq_len} tokens, over half in {figures['pairs_over_half_predicted']:.1%} of them",
        f"{wanted:.2%} of all ± {MASK_MARGIN:.0%} of that: {MASK_FRACTION:.0%} of each pair's own, rounded, at least one",
    )


def pair_checks(
    directory: Path, manifest: Manifest, make_loader: MakeLoader, *, seed: int, positions: int, seq_len: int, say: Say
) -> tuple[list[Check], dict[str, Any]]:
    """Checks and figures over as many pairs as full sequences would take for `positions` predictions.

    manifest: of the readable shards. A train split of which no pair can be made is no fault: training says so itself.
    """
    try:
        data = make_loader(Corpus(directory, manifest, ""), "mlm+nsp", seq_len, MASK_FRACTION, seed)
    except (OSError, ValueError) as error:
        return [replace(Check(*judge_not_next(0.0, "")), found=f"no pairs: {error}")], {}
    pairs = not_next = 0
    found = PairMasks()
    wanted = -(-positions // predictions_per_sequence(seq_len))
    while pairs < wanted:
        batch = data.batch(np.arange(pairs, pairs + min(BATCH, wanted), dtype=np.int64))
        labels_B = batch.nsp_labels.numpy()
        found.add(*(tensor.numpy() for tensor in (batch.input_ids, batch.positions, batch.labels, batch.weights)))
        pairs, not_next = pairs + len(labels_B), not_next + int(labels_B.sum())
        if (pairs - len(labels_B)) // (16 * BATCH) != pairs // (16 * BATCH):
            say(f"sentence pairs: {pairs:,}")
    checks = [Check(*judge_not_next(not_next / pairs, f"{pairs:,} pairs of {seq_len} tokens"))]
    checks.append(_predicted(found, seq_len))
    return checks, {"pairs": pairs, "not_next_share": not_next / pairs, **found.figures()}
