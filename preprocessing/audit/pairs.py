"""Sentence pairs as training will see them: batches of the very loader that will read them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from preprocessing.audit.check import Check, Say
from preprocessing.audit.masked import MASK_FRACTION, predictions_per_sequence
from preprocessing.audit.masking import BATCH, MakeLoader
from preprocessing.corpus.limits import judge_not_next
from preprocessing.corpus.reader import Corpus, Manifest


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
    wanted = -(-positions // predictions_per_sequence(seq_len))
    while pairs < wanted:
        batch = data.batch(np.arange(pairs, pairs + min(BATCH, wanted), dtype=np.int64))
        labels_B = batch.nsp_labels.numpy()
        pairs, not_next = pairs + len(labels_B), not_next + int(labels_B.sum())
        if (pairs - len(labels_B)) // (16 * BATCH) != pairs // (16 * BATCH):
            say(f"sentence pairs: {pairs:,}")
    checks = [Check(*judge_not_next(not_next / pairs, f"{pairs:,} pairs of {seq_len} tokens"))]
    return checks, {"pairs": pairs, "not_next_share": not_next / pairs}
