"""Token shards to batches: every sample is a pure function of (seed, epoch, index), every batch of its counters.

There is no loader state: sample counter k of a run (0, 1, 2, … over all epochs and ranks) says everything. A restart,
another number of GPUs or another micro batch reads the same samples in the same global batches.

Shapes: B samples, L tokens of a sequence, P predictions of a sequence, U uniform numbers of a sample.
"""

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.data import masking
from pipeline.data.batch import Batch, Ints
from pipeline.data.order import permute
from preprocessing.corpus.reader import CLS_ID, FIRST_ORDINARY_ID, MASK_ID, PAD_ID, SEP_ID, Corpus

N_PAIR_UNIFORMS = 6  # what `PretrainingData._pair` draws for a sample
Span = tuple[int, int, int]  # shard, start, end: tokens [start, end) of a shard's stream
Rows = tuple[Ints, Ints, Ints, Ints | None]  # tokens_BL, types_BL, length_B, nsp_labels_B


class PretrainingData:
    """The samples of one split of a corpus. Nothing is stored but the shards' memory maps and O(shards) counts.

    Sample j of a shard starts at offset j * (seq_len - 2) of the shard's stream; a shard's last, incomplete stretch
    of the stream starts no sample. A shard of a source that an epoch reads e times (Shard.epochs) has its samples, first to
    last, e times over: the same tokens under other masks; of a fraction the first samples.

    "mlm": documents packed to full length, [CLS] stream[j * (L - 2) : (j + 1) * (L - 2)] [SEP]. No padding.

    "mlm+nsp": BERT's sentence pairs (Devlin et al. 2019, appendix A.2), [CLS] A [SEP] B [SEP], padded to L:
    - The anchor offset is snapped back to the start of the sentence it lies in, but by at most L - 4 tokens, so that
      a sentence longer than that is read on by the samples that begin inside it. An anchor on a document's closing
      [SEP] belongs to the last sentence.
    - Whole sentences of that document are collected from there until they hold L - 3 tokens or the document ends;
      what is beyond 2 (L - 3) tokens is left out, so that a very long sentence stays near its anchor.
    - They are cut into A and B at a sentence boundary drawn uniformly. With probability 1/2, and always when only
      one sentence was collected, B is instead text from a random sentence of a random other document of the split on
      (all uniform), collected likewise until it reaches L - 3 tokens together with A; its label is 1.
    - Too long a pair loses tokens from the longer of the two until it fits (from B at a tie), as BERT's does. The
      loss is split between its front and its back uniformly (BERT tosses a coin for each token).
    So label 1 is a little more frequent than 1/2, by half the share of the anchors with one sentence left.

    Masks and pairs are drawn from the streams that (seed, epoch, sample) name: see pipeline.data.masking.
    """

    def __init__(
        self,
        corpus: Corpus,
        split: str,
        objective: Literal["mlm", "mlm+nsp"],
        seq_len: int,
        mask_fraction: float,
        seed: int,
    ) -> None:
        """ValueError: an unknown objective, a number out of range, a split too small for one sample or one pair."""
        if objective not in ("mlm", "mlm+nsp"):
            raise ValueError(f"objective: got {objective!r}, expected 'mlm' or 'mlm+nsp'")
        if seq_len < 5:
            raise ValueError(f"seq_len: got {seq_len}, expected at least 5, [CLS] A [SEP] B [SEP]")
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"seed: got {seed}, expected an integer in [0, 2**64); choose a non-negative one")
        if corpus.vocab_size <= FIRST_ORDINARY_ID:
            raise ValueError(f"vocab_size: got {corpus.vocab_size}, expected more than {FIRST_ORDINARY_ID} specials")
        self.objective, self.seq_len, self.seed, self.vocab_size = objective, seq_len, seed, corpus.vocab_size
        self.n_predictions = masking.predictions_per_sequence(seq_len, mask_fraction)
        self._shards = corpus.shards(split)
        self._whole_samples = np.array([len(shard.tokens) // (seq_len - 2) for shard in self._shards], np.int64)
        read = [math.floor(n * s.epochs + 1e-6) for n, s in zip(self._whole_samples.tolist(), self._shards, strict=True)]
        self._sample_ends = np.cumsum(read, dtype=np.int64)
        self._sample_starts = self._sample_ends - read
        self._document_ends = np.cumsum([len(shard.document_ends) for shard in self._shards], dtype=np.int64)
        self.n_samples = int(self._sample_ends[-1]) if self._shards else 0
        self.n_documents = int(self._document_ends[-1]) if self._shards else 0
        if self.n_samples == 0:
            raise ValueError(
                f"split {split!r}: no sample, each of its {len(self._shards)} shards holds less than the "
                f"{seq_len - 2} tokens of one (seq_len - 2); lower seq_len or build a larger corpus"
            )
        if objective == "mlm+nsp" and self.n_documents < 2:
            raise ValueError(
                f"split {split!r}: one document, expected at least 2, since a pair that is not next takes its B from "
                f"another document; use objective 'mlm' or build a corpus of more documents"
            )

    def batch(self, consumed: Ints) -> Batch:
        """The samples with these GLOBAL counters, consumed_B (see `rank_indices`), in their order.

        Counter k is the sample permute(k % n_samples, n_samples, seed, epoch) of epoch k // n_samples, so an epoch
        reads every sample once. ValueError: not a 1-D array of integers, or one below 0.
        """
        if consumed.ndim != 1 or consumed.dtype.kind not in "iu" or (consumed.size and consumed.min() < 0):
            raise ValueError(f"consumed: got {consumed!r}, expected a 1-D array of integers, none below 0")
        epoch_B, place_B = np.divmod(consumed, self.n_samples)
        sample_B = np.empty(len(consumed), dtype=np.int64)
        for epoch in np.unique(epoch_B):
            is_here_B = epoch_B == epoch
            sample_B[is_here_B] = permute(place_B[is_here_B], self.n_samples, self.seed, int(epoch))
        return self._samples(epoch_B, sample_B)

    def _samples(self, epoch_B: Ints, sample_B: Ints) -> Batch:
        """Build and mask the samples; a row depends on its own epoch and sample alone."""
        shard_B = np.searchsorted(self._sample_ends, sample_B, side="right")
        first_B = self._sample_starts[shard_B]
        offset_B = (sample_B - first_B) % self._whole_samples[shard_B] * (self.seq_len - 2)
        rows = self._packed if self.objective == "mlm" else self._pairs
        tokens_BL, types_BL, length_B, nsp_labels_B = rows(epoch_B, sample_B, shard_B, offset_B)

        n_uniforms = masking.uniforms_per_sequence(self.seq_len, self.n_predictions)
        uniforms_BU = masking.sample_uniforms(self.seed, epoch_B, sample_B, masking.MASKING, n_uniforms)
        inputs_BL, positions_BP, labels_BP, weights_BP = masking.mask_tokens(
            tokens_BL, uniforms_BU, self.n_predictions, self.vocab_size, MASK_ID, FIRST_ORDINARY_ID
        )
        is_masked_BP = inputs_BL[np.arange(len(inputs_BL))[:, None], positions_BP] == MASK_ID  # surplus slots look at [CLS]
        return Batch(
            input_ids=torch.from_numpy(inputs_BL),
            attention_mask=torch.from_numpy((np.arange(self.seq_len) < length_B[:, None]).astype(np.float32)),
            token_type_ids=torch.from_numpy(types_BL),
            positions=torch.from_numpy(positions_BP),
            labels=torch.from_numpy(labels_BP),
            weights=torch.from_numpy(weights_BP),
            is_masked=torch.from_numpy(is_masked_BP),
            nsp_labels=None if nsp_labels_B is None else torch.from_numpy(nsp_labels_B),
        )

    def _packed(self, epoch_B: Ints, sample_B: Ints, shard_B: Ints, offset_B: Ints) -> Rows:
        """Unmasked rows of "mlm"; nothing is drawn for them, so epoch_B and sample_B are not read."""
        tokens_BL = np.empty((len(sample_B), self.seq_len), dtype=np.int64)
        tokens_BL[:, 0], tokens_BL[:, -1] = CLS_ID, SEP_ID
        for row_L, shard, offset in zip(tokens_BL, shard_B, offset_B, strict=True):
            row_L[1:-1] = self._shards[shard].tokens[offset : offset + self.seq_len - 2]
        return tokens_BL, np.zeros_like(tokens_BL), np.full(len(sample_B), self.seq_len), None

    def _pairs(self, epoch_B: Ints, sample_B: Ints, shard_B: Ints, offset_B: Ints) -> Rows:
        """Unmasked rows of "mlm+nsp"."""
        uniforms_BU = masking.sample_uniforms(self.seed, epoch_B, sample_B, masking.SENTENCE_PAIRS, N_PAIR_UNIFORMS)
        tokens_BL = np.full((len(sample_B), self.seq_len), PAD_ID, dtype=np.int64)
        types_BL = np.zeros_like(tokens_BL)
        length_B = np.empty(len(sample_B), dtype=np.int64)
        nsp_labels_B = np.empty(len(sample_B), dtype=np.int64)
        for b, (shard, offset, uniforms_U) in enumerate(zip(shard_B, offset_B, uniforms_BU, strict=True)):
            span_a, span_b, nsp_labels_B[b] = self._pair(int(shard), int(offset), uniforms_U.tolist())
            length_B[b] = self._write_pair(tokens_BL[b], types_BL[b], span_a, span_b)
        return tokens_BL, types_BL, length_B, nsp_labels_B

    def _pair(self, shard: int, anchor: int, uniforms_U: list[float]) -> tuple[Span, Span, int]:
        """Spans A and B, cut to fit, and the label, for the anchor offset in a shard; see the class."""
        u_cut, u_label, u_document, u_sentence, u_trim_a, u_trim_b = uniforms_U
        budget = self.seq_len - 3
        document = _search(self._shards[shard].document_ends, anchor, "right")
        ends = self._shards[shard].sentence_ends(document)
        first = min(_search(ends, anchor, "right"), len(ends) - 1)
        start = int(ends[first - 1]) if first else self._shards[shard].document_start(document)
        start = max(start, anchor - (budget - 1))
        stop = _collect(ends, start, budget)
        cut = first + 1 + int(u_cut * max(1, stop - first - 1))  # A is sentences [first, cut)
        end = min(int(ends[stop - 1]), start + 2 * budget)
        a: Span = (shard, start, min(int(ends[cut - 1]), end))
        is_other = stop - first == 1 or u_label < 0.5
        if is_other:
            b = self._other_text(shard, document, budget - (a[2] - a[1]), u_document, u_sentence)
        else:
            b = (shard, a[2], end)
        length_a, length_b = truncated_lengths(a[2] - a[1], b[2] - b[1], budget)
        return _window(a, length_a, u_trim_a), _window(b, length_b, u_trim_b), int(is_other)

    def _other_text(self, shard: int, document: int, budget: int, u_document: float, u_sentence: float) -> Span:
        """Text of another document of the split, from a random sentence on: at least budget tokens if it has them."""
        this = document + (int(self._document_ends[shard - 1]) if shard else 0)  # counted over the split
        other = int(u_document * (self.n_documents - 1))
        other += other >= this
        shard = _search(self._document_ends, other, "right")
        document = other - (int(self._document_ends[shard - 1]) if shard else 0)
        ends = self._shards[shard].sentence_ends(document)
        first = int(u_sentence * len(ends))
        start = int(ends[first - 1]) if first else self._shards[shard].document_start(document)
        stop = _collect(ends, start, max(1, budget))
        return shard, start, min(int(ends[stop - 1]), start + 2 * (self.seq_len - 3))

    def _write_pair(self, row_L: Ints, types_L: Ints, span_a: Span, span_b: Span) -> int:
        """Write [CLS] A [SEP] B [SEP] and its token types into a row of padding; returns its length."""
        row_L[0] = CLS_ID
        here = 1
        for token_type, (shard, start, end) in enumerate((span_a, span_b)):
            sep = here + end - start
            row_L[here:sep] = self._shards[shard].tokens[start:end]
            row_L[sep] = SEP_ID
            types_L[here : sep + 1] = token_type
            here = sep + 1
        return here


def truncated_lengths(length_a: int, length_b: int, budget: int) -> tuple[int, int]:
    """Lengths after tokens are dropped one by one, from the longer (from B at a tie), until both fit in `budget`."""
    length_b = min(length_b, max(budget - length_a, budget // 2))
    return min(length_a, budget - length_b), length_b


def _window(span: Span, length: int, u: float) -> Span:
    """`length` consecutive tokens of a span, the first of them drawn uniformly by u in [0, 1)."""
    shard, start, end = span
    start += int(u * (end - start - length + 1))
    return shard, start, start + length


def _collect(sentence_ends: Ints, start: int, budget: int) -> int:
    """How many sentences of the document end by the first one that brings `budget` tokens from `start`, or by all."""
    return min(_search(sentence_ends, start + budget, "left") + 1, len(sentence_ends))


def _search(sorted_values: NDArray[np.integer], value: int, side: Literal["left", "right"]) -> int:
    """searchsorted with a value of the array's own type; for another type, numpy would convert a copy of the array."""
    return int(sorted_values.searchsorted(sorted_values.dtype.type(value), side))
