"""Lengths of the embedding's rows along a training, against how often their tokens stand in the text.

Where each row counts by its direction alone, each has an equilibrium of its own, (lr/(2·wd))^(1/4)·sqrt(σ_v), σ_v² the mean
of (||w_v||·||g_v||)². Gradients come with the token's occurrences, so σ_v² is proportional to its frequency and ||w_v|| to the
fourth root of it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.model.pretraining import PretrainingModel
from preprocessing.corpus.reader import FIRST_ORDINARY_ID

FEWEST = 20  # occurrences in the training text of a token that is looked at
Floats = NDArray[np.float64]


def row_lengths(model: PretrainingModel) -> Callable[[], Mapping[str, Any]]:
    """Gives {"rows": [||w_v||, …], "sigma_squares": [mean of (||w_v||·||g_v||)² over the updates since the last call, …]}."""
    weight = model.encoder.embedding.token.weight
    sums, updates = torch.zeros(len(weight), dtype=torch.float64), [0]

    def note(parameter: Tensor) -> None:
        assert parameter.grad is not None
        lengths = [torch.linalg.vector_norm(t.detach(), dim=1).double().cpu() for t in (parameter, parameter.grad)]
        sums.add_((lengths[0] * lengths[1]) ** 2)
        updates[0] += 1

    def since_the_last_call() -> Mapping[str, Any]:
        rows = torch.linalg.vector_norm(weight.detach(), dim=1).tolist()
        mean = (sums / max(1, updates[0])).tolist()
        sums.zero_()
        updates[0] = 0
        return {"rows": rows, "sigma_squares": mean}

    weight.register_post_accumulate_grad_hook(note)
    return since_the_last_call


def exponents(records: Sequence[Mapping[str, Any]], counts_V: NDArray[np.int64]) -> dict[str, float]:
    """p of the lines log ||w_v|| = p·log frequency + …, of all rows ("norm"), of the more and the less frequent half; of σ_v²,
    too; and "correlation", of the first line. ||w_v|| is the geometric mean over the records, σ_v² the mean."""
    seen = np.flatnonzero((counts_V >= FEWEST) & (np.arange(len(counts_V)) >= FIRST_ORDINARY_ID))
    frequency = np.log(counts_V[seen])
    norms = np.log(np.array([record["rows"] for record in records])[:, seen]).mean(axis=0)
    sigmas = np.log(np.array([record["sigma_squares"] for record in records])[:, seen].mean(axis=0))
    frequent = frequency >= np.median(frequency)
    return {
        "norm": slope(frequency, norms),
        "norm_frequent": slope(frequency[frequent], norms[frequent]),
        "norm_rare": slope(frequency[~frequent], norms[~frequent]),
        "sigma_square": slope(frequency, sigmas),
        "sigma_square_frequent": slope(frequency[frequent], sigmas[frequent]),
        "correlation": float(np.corrcoef(frequency, norms)[0, 1]),
    }


def slope(x: Floats, y: Floats) -> float:
    """Of the line through the points, by least squares."""
    return float(np.polyfit(x, y, 1)[0])
