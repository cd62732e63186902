"""Token shards to batches: every sample is a pure function of (seed, epoch, index), every batch of its counters.

There is no loader state: sample counter k of a run (0, 1, 2, … over all epochs and ranks) says everything. A restart,
another number of GPUs or another micro batch reads the same samples in the same global batches.

Shapes: B samples, L tokens of a sequence, P predictions of a sequence.
"""

import math
from typing import Literal

import numpy as np
import torch

from pipeline.config.schema import RunConfig
from pipeline.data import masking
from pipeline.data.batch import Batch, Ints
from pipeline.data.order import permute
from pipeline.data.sentence_pairs import UNIFORMS_PER_PAIR, pair_rows, split_of
from preprocessing.corpus.reader import CLS_ID, FIRST_ORDINARY_ID, MASK_ID, SEP_ID, Corpus

HELDOUT_SEED = 20220207  # of the held-out masks; not a run's seed, so that runs of all seeds are compared on one text


def training_data(corpus: Corpus, config: RunConfig) -> "PretrainingData":
    """What a run trains on."""
    data = config.data
    return PretrainingData(corpus, "train", data.objective, data.seq_len, data.mask_fraction, config.train.seed)


def heldout_data(corpus: Corpus, config: RunConfig) -> "PretrainingData":
    """What it is evaluated on: the held-out split, prepared as the training data are."""
    data = config.data
    return PretrainingData(corpus, "heldout", data.objective, data.seq_len, data.mask_fraction, HELDOUT_SEED)


class PretrainingData:
    """The samples of one split of a corpus. Nothing is stored but the shards' memory maps and O(shards) counts.

    Sample j of a shard starts at offset j * (seq_len - 2) of the shard's stream; a shard's last, incomplete stretch
    of the stream starts no sample. A shard of a source that an epoch reads e times (Shard.epochs) has its samples, first to
    last, e times over: the same tokens under other masks; of a fraction the first samples.

    "mlm": documents packed to full length, [CLS] stream[j * (L - 2) : (j + 1) * (L - 2)] [SEP]. No padding.

    "mlm+nsp": sentence pairs, each at the anchor where its sample starts, padded to L; see pipeline.data.sentence_pairs.

    Masks and pairs are drawn from the streams that (seed, epoch, sample) name: see pipeline.data.masking.

    Twelve attributes: five settings, and what is counted once of the shards.
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
        self.mask_fraction = mask_fraction
        self.n_predictions = masking.predictions_per_sequence(seq_len, mask_fraction)
        self._split = split_of(corpus.shards(split))
        shards = self._split.shards
        self._whole_samples = np.array([len(shard.tokens) // (seq_len - 2) for shard in shards], np.int64)
        read = [math.floor(n * s.epochs + 1e-6) for n, s in zip(self._whole_samples.tolist(), shards, strict=True)]
        self._sample_ends = np.cumsum(read, dtype=np.int64)
        self._sample_starts = self._sample_ends - read
        self.n_samples = int(self._sample_ends[-1]) if shards else 0
        self.n_documents = self._split.n_documents
        if self.n_samples == 0:
            raise ValueError(
                f"split {split!r}: no sample, each of its {len(shards)} shards holds less than the "
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
        mask_BL = nsp_labels_B = None
        if self.objective == "mlm":
            tokens_BL = self._packed(shard_B, offset_B)
            types_BL = np.zeros_like(tokens_BL)
        else:
            uniforms_BU = masking.sample_uniforms(self.seed, epoch_B, sample_B, masking.SENTENCE_PAIRS, UNIFORMS_PER_PAIR)
            tokens_BL, types_BL, length_B, nsp_labels_B = pair_rows(self._split, self.seq_len, shard_B, offset_B, uniforms_BU)
            mask_BL = (np.arange(self.seq_len) < length_B[:, None]).astype(np.float32)
        n_uniforms = masking.uniforms_per_sequence(self.seq_len, self.n_predictions)
        uniforms_BU = masking.sample_uniforms(self.seed, epoch_B, sample_B, masking.MASKING, n_uniforms)
        inputs_BL, positions_BP, labels_BP, weights_BP = masking.mask_tokens(
            tokens_BL,
            uniforms_BU,
            self.n_predictions,
            self.vocab_size,
            MASK_ID,
            FIRST_ORDINARY_ID,
            self.mask_fraction,
        )
        is_masked_BP = inputs_BL[np.arange(len(inputs_BL))[:, None], positions_BP] == MASK_ID  # surplus slots look at [CLS]
        return Batch(
            input_ids=torch.from_numpy(inputs_BL),
            token_type_ids=torch.from_numpy(types_BL),
            positions=torch.from_numpy(positions_BP),
            labels=torch.from_numpy(labels_BP),
            weights=torch.from_numpy(weights_BP),
            attention_mask=None if mask_BL is None else torch.from_numpy(mask_BL),
            nsp_labels=None if nsp_labels_B is None else torch.from_numpy(nsp_labels_B),
            is_masked=torch.from_numpy(is_masked_BP),
        )

    def _packed(self, shard_B: Ints, offset_B: Ints) -> Ints:
        """Tokens of "mlm", not masked yet, [B, L]."""
        tokens_BL = np.empty((len(shard_B), self.seq_len), dtype=np.int64)
        tokens_BL[:, 0], tokens_BL[:, -1] = CLS_ID, SEP_ID
        for row_L, shard, offset in zip(tokens_BL, shard_B, offset_B, strict=True):
            row_L[1:-1] = self._split.shards[shard].tokens[offset : offset + self.seq_len - 2]
        return tokens_BL
