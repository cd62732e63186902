"""Masking as training will see it: batches of the very loader that will read it, judged over about a million predictions.

Every row is put together again from its labels and looked up among the stretches of the shards' streams, so this needs no
knowledge of the loader's order. Shapes: B samples, L tokens of a sequence, W of them between [CLS] and [SEP], V pieces.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from preprocessing.audit.check import SIGMAS, TAIL, Check, Say, chi_square_bounds, poisson_bounds
from preprocessing.audit.masked import MASK_FRACTION, Masked, predictions_per_sequence, shares_expected
from preprocessing.audit.shards import CHUNK_TOKENS, StoredShard
from preprocessing.corpus.reader import FIRST_ORDINARY_ID, Corpus, Manifest

BATCH = 1024
BINS = 64


class Loader(Protocol):
    """What the audit asks of a loader: how many samples an epoch has, and batches of them, whose input_ids [B, L],
    positions, labels and weights [B, P], and nsp_labels [B] of pairs (1: not next) are tensors with numpy()."""

    n_samples: int

    def batch(self, consumed: np.ndarray, /) -> Any:
        """The samples with these counters, int64 [B]."""


MakeLoader = Callable[[Corpus, Literal["mlm", "mlm+nsp"], int, float, int], Loader]
"""(corpus, objective, seq_len, mask_fraction, seed): of the train split packed text ("mlm") or sentence pairs ("mlm+nsp").
Handed in: an audit knows nothing of training."""


def masking_checks(
    directory: Path,
    manifest: Manifest,
    shards: Sequence[StoredShard],
    sources: dict[str, dict[str, Any]],
    make_loader: MakeLoader,
    *,
    seed: int,
    positions: int,
    seq_len: int,
    say: Say,
) -> tuple[list[Check], dict[str, Any]]:
    """Checks and figures over at least `positions` predictions; `sources` are stream.source_figures."""
    readable = replace(manifest, shards=tuple(shard.info for shard in shards))
    expected = f"a loader of sequences of {seq_len} tokens over the train split"
    try:
        data = make_loader(Corpus(directory, readable, ""), "mlm", seq_len, MASK_FRACTION, seed)
    except (OSError, ValueError) as error:
        return [Check("masking: the loader", False, str(error), expected)], {}
    found = Masked(seq_len, manifest.vocab_size, data.n_samples)
    wanted = -(-positions // predictions_per_sequence(seq_len))
    while found.predictions < positions and found.sequences < 10 * wanted:  # text of few ordinary tokens ends, too
        first, size = found.sequences, min(BATCH, wanted)
        batch = data.batch(np.arange(first, first + size, dtype=np.int64))
        found.add(*(tensor.numpy() for tensor in (batch.input_ids, batch.positions, batch.labels, batch.weights)))
        if first // (64 * BATCH) != found.sequences // (64 * BATCH):
            say(f"masking: {found.predictions:,} predictions")
    train = [shard for shard in shards if shard.info.split == "train"]
    checks = [
        *_row_checks(found, train, sources),
        _counts(found),
        _specials_predicted(found),
        _shares(found),
        _specials_drawn(found),
        _positions(found),
        *_drawn_ids(found),
    ]
    return checks, _figures(found)


def _row_checks(found: Masked, shards: Sequence[StoredShard], sources: dict[str, dict[str, Any]]) -> list[Check]:
    distinct, row_of_B = np.unique(np.concatenate(found.hashes), return_inverse=True)
    names = list(sources)
    source_of = np.full(len(distinct), -1)
    for shard in shards:
        for hashes in _stretch_hashes(shard.tokens_N, found.weights_W):
            place = np.minimum(np.searchsorted(distinct, hashes), len(distinct) - 1)
            here = place[distinct[place] == hashes]
            source_of[here[source_of[here] < 0]] = names.index(shard.info.source)
    drawn_B = source_of[row_of_B]
    unknown = int((drawn_B < 0).sum())
    labels = Check(
        "masking: labels are the text",
        unknown == found.wrong_frames == 0,
        f"of {found.sequences:,} sequences {unknown:,} are no stretch of a shard once their labels are put back, "
        f"{found.wrong_frames:,} lack [CLS] or [SEP]",
        f"0: [CLS], {found.seq_len - 2} tokens of the stream, [SEP]; only predicted positions are changed",
    )
    return [labels, _source_shares(found, np.bincount(drawn_B[drawn_B >= 0], minlength=len(names)), shards, sources)]


def _stretch_hashes(tokens_N: np.ndarray, weights_W: np.ndarray) -> list[np.ndarray]:
    """Of each stretch of W tokens, one after another: its sum of products with odd weights, modulo 2**64."""
    width = len(weights_W)
    stretches = tokens_N[: len(tokens_N) // width * width].reshape(-1, width)
    step = max(1, CHUNK_TOKENS // width)
    return [stretches[i : i + step].astype(np.uint64) @ weights_W for i in range(0, len(stretches), step)]


def _source_shares(
    found: Masked, drawn: np.ndarray, shards: Sequence[StoredShard], sources: dict[str, dict[str, Any]]
) -> Check:
    """An epoch may round a source that is read a fraction of a time: by less than one sample a shard."""
    wanted = sum(row["epoch_samples"] for row in sources.values())
    whole = all(float(row["epochs"]).is_integer() for row in sources.values())
    slack = 0 if whole else len(shards)
    passed = abs(found.epoch_samples - wanted) <= slack
    said, expected = [], []
    for (name, row), count in zip(sources.items(), drawn, strict=True):
        p, share = row["sample_share"], count / max(1, drawn.sum())
        margin = SIGMAS * math.sqrt(p * (1 - p) / max(1, drawn.sum())) + slack / max(1, wanted)
        passed &= bool(abs(share - p) <= margin)
        said.append(f"{name} {share:.4f}")
        expected.append(f"{name} {p:.4f} ± {margin:.4f}")
    return Check(
        "masking: sources' shares of the samples",
        passed,
        f"{', '.join(said)}; {found.epoch_samples:,} samples in an epoch",
        f"{', '.join(expected)}; {wanted:,.0f} samples in an epoch (whole sequences of a shard × epochs)",
    )


def _counts(found: Masked) -> Check:
    P, positions = predictions_per_sequence(found.seq_len), found.seq_len - 2
    share = found.predictions / (found.sequences * positions)
    return Check(
        "masking: predictions of a sequence",
        found.wrong_counts == 0,
        f"{share:.4%} of all positions; {found.wrong_counts:,} of {found.sequences:,} sequences have another number",
        f"{P} different positions of {positions}, {P / positions:.4%}, in each; fewer where separators leave fewer to predict",
    )


def _specials_predicted(found: Masked) -> Check:
    return Check(
        "masking: no special piece is predicted",
        found.specials_predicted == 0,
        f"{found.specials_predicted:,} of {found.predictions:,} labels are special pieces",
        f"0: all labels are ordinary, from {FIRST_ORDINARY_ID} up",
    )


def _specials_drawn(found: Masked) -> Check:
    return Check(
        "masking: no special piece is drawn",
        found.improper_draws == 0,
        f"{found.improper_draws:,} of {found.draws:,} random tokens are special pieces, or beyond the vocabulary",
        f"0: they are drawn from {FIRST_ORDINARY_ID} to {found.vocab_size - 1:,}",
    )


def _shares(found: Masked) -> Check:
    ordinary = max(1, found.predictions - found.specials_predicted)
    counts = (found.masks, found.draws, found.kept)
    said, expected, passed = [], [], True
    for (name, p), count in zip(shares_expected(found.vocab_size).items(), counts, strict=True):
        margin = SIGMAS * math.sqrt(p * (1 - p) / ordinary)
        passed &= abs(count / ordinary - p) <= margin
        said.append(f"{name} {count / ordinary:.5f}")
        expected.append(f"{name} {p:.5f} ± {margin:.5f}")
    return Check(
        "masking: 80 / 10 / 10",
        passed,
        f"{', '.join(said)} of {ordinary:,} predictions",
        f"{', '.join(expected)} ({SIGMAS:g} sigma)",
    )


def _positions(found: Masked) -> Check:
    possible = found.variance_L > 0
    degrees = max(1, int(possible.sum()) - 1)  # the numbers of a sequence's predictions are given
    excess = (found.predicted_L - found.expected_L)[possible] ** 2 / found.variance_L[possible]
    statistic = float(excess.sum()) * degrees / (degrees + 1)
    return _chi_square("masking: positions are uniform", statistic, degrees, f"over {degrees + 1} positions")


def _chi_square(name: str, statistic: float, degrees: int, over: str) -> Check:
    low, high = chi_square_bounds(degrees)
    return Check(
        name,
        low <= statistic <= high,
        f"chi-square {statistic:.1f} {over}",
        f"{low:.1f} to {high:.1f} ({degrees} degrees of freedom, {SIGMAS:g} sigma)",
    )


def _drawn_ids(found: Masked) -> list[Check]:
    """Random tokens: each id as often as any other, but for the label itself, which would look kept."""
    drawn, expected, V = found.drawn_V[FIRST_ORDINARY_ID:], _draws_expected(found), found.vocab_size
    n = int(drawn.sum())
    degrees = max(2, min(BINS, len(drawn), n // 10)) - 1
    counts, means = _binned(drawn, degrees + 1), _binned(expected, degrees + 1)
    statistic = float(((counts - means)[means > 0] ** 2 / means[means > 0]).sum())
    uniform = _chi_square("masking: drawn ids are uniform", statistic, degrees, f"over {degrees + 1} bins of ids, {n:,} draws")
    never, mean = int((drawn == 0).sum()), float(np.exp(-expected).sum())
    low, high = poisson_bounds(mean)
    reachable = Check(
        "masking: every ordinary id is reachable",
        low <= never <= high,
        f"{never:,} of {len(drawn):,} ids were never drawn in {n:,} draws",
        f"{low:,} to {high:,} (mean {mean:.1f} for so many draws, {SIGMAS:g} sigma)",
    )
    # Nothing within `gap` ids of the border: (1 - gap / V) ** n = TAIL.
    gap = math.ceil(len(drawn) * -math.log(TAIL) / max(1, n))
    ids = np.nonzero(drawn)[0] + FIRST_ORDINARY_ID
    lowest, highest = (int(ids[0]), int(ids[-1])) if n else (-1, -1)
    borders = Check(
        "masking: lowest and highest drawn id",
        FIRST_ORDINARY_ID <= lowest <= FIRST_ORDINARY_ID + gap and V - 1 - gap <= highest < V,
        f"{lowest:,} and {highest:,}",
        f"{FIRST_ORDINARY_ID} to {FIRST_ORDINARY_ID + gap:,} and {V - 1 - gap:,} to {V - 1:,}",
    )
    return [uniform, reachable, borders]


def _draws_expected(found: Masked) -> np.ndarray:
    """Mean draws of each ordinary id, given the labels that stood where something was drawn."""
    drawn_for = found.drawn_for_V[FIRST_ORDINARY_ID:]
    return (drawn_for.sum() - drawn_for) / max(1, len(drawn_for) - 1)


def _binned(values: np.ndarray, bins: int) -> np.ndarray:
    """Sums over ranges of equal width."""
    return np.add.reduceat(values.astype(float), np.linspace(0, len(values), bins, endpoint=False).astype(int))


def _figures(found: Masked) -> dict[str, Any]:
    bins = max(1, min(BINS, found.vocab_size - FIRST_ORDINARY_ID))
    ordinary = max(1, found.predictions - found.specials_predicted)
    shares = zip(shares_expected(found.vocab_size).items(), (found.masks, found.draws, found.kept), strict=True)
    return {
        "seq_len": found.seq_len,
        "sequences": found.sequences,
        "epochs": found.sequences / found.epoch_samples,
        "predictions": found.predictions,
        "shares": {name: {"found": count / ordinary, "expected": p} for (name, p), count in shares},
        "position_counts": found.predicted_L[1:-1].astype(int).tolist(),
        "position_expected": found.expected_L[1:-1].tolist(),
        "drawn_bins": _binned(found.drawn_V[FIRST_ORDINARY_ID:], bins).astype(int).tolist(),
        "drawn_expected": _binned(_draws_expected(found), bins).tolist(),
    }
