"""Held-out loss by how frequent the hidden tokens are: a model that knows nothing but frequencies is bad at the rare ones.

The vocabulary is cut into bins that each hold a like share of the training text, the most frequent pieces first, so that each
bin weighs about the same in the mean loss. Beside the model's loss stands that of the unigram model of the training text (one
added to each count), which is what context has to beat.

Shapes: N predictions, V vocabulary.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.batch import Batch
from preprocessing.corpus.reader import FIRST_ORDINARY_ID

BINS = 10
SHOWN = ("visible", "mask")  # the token itself or a random one stood in the input; [MASK] did
SUMS = ("predictions", "loss", "unigram_loss")


@dataclass(frozen=True)
class FrequencyBins:
    """Which bin each piece is in, and the unigram model's loss for it; `about` describes each bin. On the CPU."""

    bin_V: Tensor  # int64; special tokens are never predicted: 0
    unigram_loss_V: Tensor  # float64, nats; 0 for special tokens
    about: tuple[dict[str, int], ...]  # {"pieces", "fewest", "most"}: how many, and how often they stand in the training text

    @property
    def n_sums(self) -> int:
        """Length of what `sums` gives."""
        return len(SHOWN) * len(self.about) * len(SUMS)


def frequency_bins(counts_V: np.ndarray, bins: int = BINS) -> FrequencyBins:
    """Bins of like shares of a training text in which piece v stands counts_V[v] times.

    Pieces of one count are in order of their ids. A piece is where the middle of its share lies; where one very frequent piece
    spans several bins, there is one.
    """
    counts = counts_V[FIRST_ORDINARY_ID:].astype(np.int64)
    order = np.argsort(-counts, kind="stable")
    sorted_counts = counts[order]
    middles = (np.cumsum(sorted_counts) - sorted_counts / 2) / max(1, sorted_counts.sum())
    wanted = np.minimum((middles * bins).astype(np.int64), bins - 1)
    _, found = np.unique(wanted, return_inverse=True)
    bin_V = torch.zeros(len(counts_V), dtype=torch.int64)
    bin_V[FIRST_ORDINARY_ID + torch.from_numpy(order)] = torch.from_numpy(found)
    unigram_loss_V = torch.zeros(len(counts_V), dtype=torch.float64)
    unigram_loss_V[FIRST_ORDINARY_ID:] = torch.from_numpy(math.log((counts + 1).sum()) - np.log(counts + 1))
    of_bins = [sorted_counts[found == number] for number in range(found[-1] + 1)]
    about = tuple({"pieces": len(of), "fewest": int(of[-1]), "most": int(of[0])} for of in of_bins)
    return FrequencyBins(bin_V, unigram_loss_V, about)


def sums(bins: FrequencyBins, batch: Batch, token_loss_N: Tensor) -> Tensor:
    """What a batch adds to each bin, float64 [n_sums] on the CPU: to be added over batches and ranks, then read by `table`."""
    assert batch.is_masked is not None
    labels_N, weights_N = batch.labels.flatten().cpu(), batch.weights.flatten().double().cpu()
    cell_N = batch.is_masked.flatten().cpu().long() * len(bins.about) + bins.bin_V[labels_N]
    parts = (weights_N, token_loss_N.double().cpu(), weights_N * bins.unigram_loss_V[labels_N])
    cells = len(SHOWN) * len(bins.about)
    return torch.stack([torch.bincount(cell_N, part_N, minlength=cells) for part_N in parts], dim=1).flatten()


def table(bins: FrequencyBins, total: Tensor) -> dict[str, Any]:
    """{"bins": [{"pieces", "fewest", "most", "mask": {"predictions", "loss", "unigram_loss"}, "visible": the same}]}, the most
    frequent pieces first; losses are means in nats, None where there is no prediction or it is not finite."""
    cells = total.reshape(len(SHOWN), len(bins.about), len(SUMS)).tolist()
    rows: list[dict[str, Any]] = [dict(about) for about in bins.about]
    for shown, of_bins in zip(SHOWN, cells, strict=True):
        for row, (count, loss, unigram_loss) in zip(rows, of_bins, strict=True):
            row[shown] = {"predictions": round(count), "loss": _mean(loss, count), "unigram_loss": _mean(unigram_loss, count)}
    return {"bins": rows}


def _mean(total: float, count: float) -> float | None:
    return total / count if count and math.isfinite(total) else None
