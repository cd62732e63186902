"""Batches: functions of their counters alone, every sample once an epoch, packed text and sentence pairs as defined.

One file, longer than others, because packed text and pairs are held to one readable reference.
"""

import dataclasses
import math
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.data.batch import Batch, rank_indices
from pipeline.data.pretraining import PretrainingData
from pipeline.data.sentence_pairs import truncated_lengths
from preprocessing.corpus.reader import CLS_ID, FIRST_ORDINARY_ID, MASK_ID, SEP_ID, Shard
from preprocessing.corpus.writer import Document, ShardWriter

VOCAB_SIZE = 30_000
OBJECTIVES = ("mlm", "mlm+nsp")
L = 32

Documents = list[list[list[list[int]]]]  # [shard][document][sentence][token]


def numbered_documents(sentence_counts: list[list[int]], lengths: tuple[int, int], seed: int = 0) -> Documents:
    """Documents whose ordinary tokens are 5, 6, 7, … over the whole split, so a token tells where it stood."""
    rng = np.random.default_rng(seed)
    token = FIRST_ORDINARY_ID
    shards: Documents = []
    for counts in sentence_counts:
        shard = []
        for n_sentences in counts:
            document = []
            for length in rng.integers(*lengths, n_sentences).tolist():
                document.append(list(range(token, token + length)))
                token += length
            shard.append(document)
        shards.append(shard)
    assert token <= VOCAB_SIZE
    return shards


def write_corpus(directory: Path, documents: Documents, split: str = "train") -> Any:
    """Real shards behind the two names of a Corpus that PretrainingData reads."""
    directory.mkdir(parents=True, exist_ok=True)
    shards = []
    for index, shard in enumerate(documents):
        with ShardWriter(directory / f"{split}-{index:05d}.arrow", split, "uint16", vocab_size=VOCAB_SIZE) as writer:
            for number, sentences in enumerate(shard):
                writer.add(Document("made up", str(number), "", sentences))
        shards.append(Shard(writer.path, writer.close(), token_dtype="uint16"))
    return SimpleNamespace(vocab_size=VOCAB_SIZE, shards=lambda name: tuple(shards) if name == split else ())


DOCUMENTS = numbered_documents([[20, 1, 30, 2, 40] * 3, [3] * 30, [100]], (3, 14))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return write_corpus(tmp_path_factory.mktemp("corpus"), DOCUMENTS)


def make(corpus: Any, objective: str = "mlm", seq_len: int = L, seed: int = 1, **changes: Any) -> PretrainingData:
    return PretrainingData(corpus, "train", objective, seq_len, changes.pop("mask_fraction", 0.15), seed, **changes)


SUMMED = ("input_ids", "attention_mask", "token_type_ids", "positions", "labels", "weights", "is_masked", "nsp_labels")


def unmasked(batch: Batch) -> torch.Tensor:
    """input_ids with the labels put back."""
    tokens_BL = batch.input_ids.clone()
    real_BP = batch.weights > 0
    row_BP = torch.arange(len(tokens_BL))[:, None].expand_as(real_BP)
    tokens_BL[row_BP[real_BP], batch.positions[real_BP]] = batch.labels[real_BP]
    return tokens_BL


def checksum(batch: Batch) -> int:
    """Of all tensors, packed text with the mask of ones that it need not have."""
    tensors = {"attention_mask": torch.ones(batch.input_ids.shape), **batch.tensors()}
    return zlib.crc32(b"".join(tensors[name].numpy().tobytes() for name in SUMMED if name in tensors))


def assert_rows_equal(one: Batch, rows: list[int], other: Batch) -> None:
    for name, value in one.tensors().items():
        assert torch.equal(value[rows], other.tensors()[name]), name


def assert_binomial(hits: int, trials: int, p: float) -> None:
    """`hits` lies within 4.5 standard deviations of its mean."""
    assert abs(hits - trials * p) < 4.5 * math.sqrt(trials * p * (1 - p)), f"{hits} of {trials}, p = {p:.3f}"


# --- counters


def test_rank_indices_give_the_same_global_batch_whatever_the_world() -> None:
    G, micro = 16, 2
    for step in (0, 3):
        expected = list(range(step * G, (step + 1) * G))
        for world_size in (1, 2, 4, 8):
            seen = [
                rank_indices(step, a, r, world_size, G, micro)
                for a in range(G // (world_size * micro))
                for r in range(world_size)
            ]
            assert np.concatenate(seen).tolist() == expected


def test_rank_indices_keep_the_order_for_other_micro_batches() -> None:
    for micro in (1, 2, 4, 8):
        seen = [rank_indices(1, a, r, 2, 16, micro) for a in range(8 // micro) for r in range(2)]
        assert np.concatenate(seen).tolist() == list(range(16, 32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 0, 3, 16, 2), r"global_batch 16 with world_size 3 .* multiple of world_size \* micro_batch = 6"),
        ((0, 0, 0, 1, 0, 2), "global_batch 0"),
        ((0, 0, 0, 0, 16, 2), "world_size 0"),
        ((0, 4, 0, 2, 16, 2), r"micro_step in \[0, 4\)"),
        ((0, 0, 2, 2, 16, 2), r"rank in \[0, 2\)"),
        ((-1, 0, 0, 2, 16, 2), "step -1"),
    ],
)
def test_rank_indices_bad_input(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_indices(*arguments)


# --- purity


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_sample_is_a_function_of_its_counter(corpus: Any, objective: str) -> None:
    """Alone, in any batch, in any order, from another object: the same rows, also across the end of an epoch."""
    data = make(corpus, objective)
    consumed_B = np.arange(data.n_samples - 12, data.n_samples + 12)
    batch = data.batch(consumed_B)
    order = np.random.default_rng(0).permutation(24)
    assert_rows_equal(batch, order.tolist(), make(corpus, objective).batch(consumed_B[order]))
    for b in (0, 11, 12, 23):
        assert_rows_equal(batch, [b], data.batch(consumed_B[b : b + 1]))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_world_size_reads_the_same_global_batch(corpus: Any, objective: str) -> None:
    expected = make(corpus, objective).batch(np.arange(8, 16))
    for world_size, micro in ((1, 8), (1, 2), (2, 2), (4, 2), (4, 1)):
        data = make(corpus, objective)
        row = 0
        for a in range(8 // (world_size * micro)):
            for rank in range(world_size):
                part = data.batch(rank_indices(1, a, rank, world_size, 8, micro))
                assert_rows_equal(expected, list(range(row, row + micro)), part)
                row += micro


@pytest.mark.parametrize(("objective", "expected"), [("mlm", 2758230196), ("mlm+nsp", 3348863644)])
def test_golden_batches(corpus: Any, objective: str, expected: int) -> None:
    """Another process and another machine read the same. A change here changes what every unfinished run reads."""
    assert checksum(make(corpus, objective).batch(np.arange(50))) == expected


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_seed_and_epoch_change_masks_and_order(corpus: Any, objective: str) -> None:
    data = make(corpus, objective)
    here = np.arange(data.n_samples)
    first, second = data.batch(here), data.batch(here + data.n_samples)
    other = make(corpus, objective, seed=2).batch(here)
    for batch in (second, other):
        assert (batch.input_ids == first.input_ids).all(dim=1).sum() <= 2
    in_place = [data._samples(np.full(data.n_samples, e), here) for e in (0, 1)]  # the same samples, unshuffled
    in_place.append(make(corpus, objective, seed=2)._samples(np.zeros_like(here), here))
    for batch in in_place[1:]:
        agreement = (batch.positions == in_place[0].positions).float().mean()
        assert agreement < 0.3, "the masks of other seeds and epochs coincide"
        if batch.nsp_labels is not None:
            assert (batch.nsp_labels == in_place[0].nsp_labels).float().mean() < 0.75


# --- packed text


def streams(documents: Documents) -> list[np.ndarray]:
    """Each shard's stream, made from the documents: the sentences' tokens, then [SEP]."""
    return [np.array([t for doc in shard for sentence in [*doc, [SEP_ID]] for t in sentence]) for shard in documents]


def test_packed_samples_read_every_stretch_of_the_stream_once_an_epoch(corpus: Any) -> None:
    data = make(corpus)
    expected = [
        [CLS_ID, *stream[j * (L - 2) : (j + 1) * (L - 2)].tolist(), SEP_ID]
        for stream in streams(DOCUMENTS)
        for j in range(len(stream) // (L - 2))
    ]
    assert data.n_samples == len(expected)
    orders = []
    for epoch in range(3):
        batch = data.batch(np.arange(epoch * data.n_samples, (epoch + 1) * data.n_samples))
        rows = unmasked(batch).tolist()
        assert sorted(rows) == sorted(expected)
        orders.append(rows)
        assert batch.attention_mask is None
        assert not batch.token_type_ids.any()
        assert batch.nsp_labels is None
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] != expected


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_shapes_and_masks(corpus: Any, objective: str) -> None:
    data = make(corpus, objective)
    B, P = 40, data.n_predictions
    assert round(0.15 * (L - 2)) == P == 4
    batch = data.batch(np.arange(B))
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in batch.tensors().items()}
    expected = {
        "input_ids": ((B, L), torch.int64),
        "token_type_ids": ((B, L), torch.int64),
        "positions": ((B, P), torch.int64),
        "labels": ((B, P), torch.int64),
        "weights": ((B, P), torch.float32),
        "is_masked": ((B, P), torch.bool),
    }
    of_pairs = {"attention_mask": ((B, L), torch.float32), "nsp_labels": ((B,), torch.int64)}
    assert shapes == (expected | of_pairs if objective == "mlm+nsp" else expected)
    at_positions_BP = batch.input_ids.gather(1, batch.positions)
    assert torch.equal(batch.is_masked, at_positions_BP == MASK_ID)
    assert (batch.labels[batch.weights > 0] >= FIRST_ORDINARY_ID).all()
    assert 0.6 < batch.is_masked.float().mean() < 0.95
    assert (batch.input_ids == MASK_ID).sum() == batch.is_masked.sum()


def test_is_masked_is_false_in_surplus_slots(tmp_path: Path) -> None:
    documents = [[[[9]] for _ in range(40)]]  # one ordinary token a document: half of a packed sample is [SEP]
    data = make(write_corpus(tmp_path, documents), seq_len=8, mask_fraction=1.0)
    batch = data.batch(np.arange(data.n_samples))
    assert data.n_predictions == 6
    assert batch.weights.sum(dim=1).tolist() == [3.0] * data.n_samples
    assert not batch.is_masked[batch.weights == 0].any()
    assert batch.is_masked.any()


def test_to_moves_every_tensor(corpus: Any) -> None:
    for objective in OBJECTIVES:
        batch = make(corpus, objective).batch(np.arange(2)).to("meta")
        assert all(tensor.device.type == "meta" for tensor in batch.tensors().values())
        assert (batch.nsp_labels is None) == (objective == "mlm")


def test_map_reaches_every_tensor_and_leaves_what_is_not_there(corpus: Any) -> None:
    batch = make(corpus).batch(np.arange(4))
    part = batch.map(lambda tensor: tensor[1:3])
    assert_rows_equal(batch, [1, 2], part)
    assert part.tensors().keys() == batch.tensors().keys()
    assert part.attention_mask is None
    assert part.nsp_labels is None


# --- sentence pairs


@dataclasses.dataclass(frozen=True)
class Pair:
    """One row of a sentence pair batch, taken apart and looked up in the corpus."""

    a: list[int]
    b: list[int]
    label: int
    padding: int

    def documents(self) -> tuple[set[int], set[int]]:
        return {DOCUMENT_OF[t] for t in self.a}, {DOCUMENT_OF[t] for t in self.b}


SENTENCES = [sentence for shard in DOCUMENTS for document in shard for sentence in document]
DOCUMENT_OF = {
    token: number
    for number, document in enumerate(document for shard in DOCUMENTS for document in shard)
    for sentence in document
    for token in sentence
}
STARTS, ENDS = {s[0] for s in SENTENCES}, {s[-1] for s in SENTENCES}
LAST_OF_DOCUMENT = {document[-1][-1] for shard in DOCUMENTS for document in shard}


def pairs(batch: Batch) -> list[Pair]:
    """Takes the rows apart and holds each to [CLS] A [SEP] B [SEP] [PAD]…, with its types and attention mask."""
    assert batch.nsp_labels is not None
    result = []
    for row, types, mask, label in zip(
        unmasked(batch).tolist(),
        batch.token_type_ids.tolist(),
        batch.attention_mask.tolist(),
        batch.nsp_labels.tolist(),
        strict=True,
    ):
        first, second = (i for i, token in enumerate(row) if token == SEP_ID)
        a, b, padding = row[1:first], row[first + 1 : second], len(row) - second - 1
        assert row == [CLS_ID, *a, SEP_ID, *b, SEP_ID] + [0] * padding
        assert types == [0] * (len(a) + 2) + [1] * (len(b) + 1) + [0] * padding
        assert mask == [1.0] * (len(row) - padding) + [0.0] * padding
        result.append(Pair(a, b, label, padding))
    return result


def is_run(tokens: list[int]) -> bool:
    """Consecutive in the stream: the tokens are numbered."""
    return len(tokens) > 0 and tokens == list(range(tokens[0], tokens[0] + len(tokens)))


@pytest.fixture(scope="module")
def many_pairs(corpus: Any) -> list[Pair]:
    data = make(corpus, "mlm+nsp")
    return pairs(data.batch(np.arange(30 * data.n_samples)))


def test_pairs_are_next_or_not_as_labelled(many_pairs: list[Pair]) -> None:
    for pair in many_pairs:
        assert is_run(pair.a)
        assert is_run(pair.b)
        documents_a, documents_b = pair.documents()
        assert len(documents_a) == len(documents_b) == 1
        assert (documents_a == documents_b) == (pair.label == 0)
        if pair.label == 0:
            assert pair.a[-1] < pair.b[0]
            if pair.padding:  # nothing was cut off: B goes on where A ends, at a sentence boundary
                assert pair.b[0] == pair.a[-1] + 1


def test_pairs_that_fit_are_whole_sentences(many_pairs: list[Pair]) -> None:
    fitting = [pair for pair in many_pairs if pair.padding]
    assert len(fitting) > 100
    for pair in fitting:
        assert pair.a[0] in STARTS
        assert pair.a[-1] in ENDS
        assert pair.b[0] in STARTS
        assert pair.b[-1] in LAST_OF_DOCUMENT, "padding although the document goes on"
    full = [pair for pair in many_pairs if not pair.padding]
    assert len(full) > len(fitting)
    assert all(len(pair.a) + len(pair.b) == L - 3 for pair in full)


def test_cuts_touch_the_two_outer_ends_of_each_segment(many_pairs: list[Pair]) -> None:
    """Truncation drops from the front and from the back, and from the longer only."""
    cut = [pair for pair in many_pairs if not pair.padding]
    for segment in ("a", "b"):
        tokens = [getattr(pair, segment) for pair in cut]
        assert any(t[0] not in STARTS and t[-1] in ENDS for t in tokens)
        assert any(t[0] in STARTS and t[-1] not in ENDS for t in tokens)


def test_labels_are_balanced(tmp_path: Path) -> None:
    """A fair coin where at least two sentences are left, always 1 where there is only one."""
    corpus = write_corpus(tmp_path, [[[[9] * 4] * 200] * 2])
    data = make(corpus, "mlm+nsp")
    anchors = np.arange(data.n_samples) * (L - 2) % 801
    is_alone = anchors >= 4 * 199  # in the last sentence, or on the [SEP]
    here = np.arange(data.n_samples)
    labels = np.array([data._samples(np.full_like(here, epoch), here).nsp_labels.numpy() for epoch in range(80)])
    assert labels[:, is_alone].all()
    assert_binomial(int(labels[:, ~is_alone].sum()), labels[:, ~is_alone].size, 0.5)

    lonely = make(write_corpus(tmp_path / "lonely", [[[[9] * 20]] * 10]), "mlm+nsp")
    assert lonely.batch(np.arange(50)).nsp_labels.tolist() == [1] * 50


def test_not_next_comes_from_every_other_document_evenly(corpus: Any) -> None:
    """Of any shard; also where A's document is the first or the last."""
    data = make(corpus, "mlm+nsp")
    n = data.n_documents
    assert n == 46
    not_next = [pair.documents() for pair in pairs(data.batch(np.arange(60 * data.n_samples))) if pair.label]
    counts = np.bincount([(b.pop() - a.pop()) % n for a, b in not_next], minlength=n)  # how far apart
    assert counts[0] == 0
    expected = len(not_next) / (n - 1)
    assert ((counts[1:] - expected) ** 2 / expected).sum() < (n - 2) + 5 * math.sqrt(2 * (n - 2))


def test_sentences_are_drawn_evenly(tmp_path: Path) -> None:
    """Documents short enough for nothing to be cut: where a foreign B starts, and where a pair is cut."""
    documents = [[[[5 + s] * 4 for s in range(10)] for _ in range(12)]]  # the token is the sentence's number
    data = make(write_corpus(tmp_path, documents), "mlm+nsp", seq_len=96)
    found = pairs(data.batch(np.arange(400 * data.n_samples)))
    starts = [pair.b[0] - 5 for pair in found if pair.label]
    for count in np.bincount(starts, minlength=10):
        assert_binomial(int(count), len(starts), 1 / 10)
    from_the_first = [len(pair.a) // 4 for pair in found if pair.a[0] == 5 and not pair.label]
    assert len(from_the_first) > 100
    for count in np.bincount(from_the_first, minlength=10)[1:]:
        assert_binomial(int(count), len(from_the_first), 1 / 9)


def test_anchors(corpus: Any) -> None:
    """A starts at the sentence the anchor lies in; on a document's closing [SEP], at its last sentence."""
    data = make(corpus, "mlm+nsp")
    expected: list[int] = []
    for stream in streams(DOCUMENTS):
        for offset in range(0, len(stream) // (L - 2) * (L - 2), L - 2):
            token = stream[offset] if stream[offset] != SEP_ID else stream[offset - 1]
            expected.append(next(s[0] for s in SENTENCES if s[0] <= token <= s[-1]))
    here = np.arange(data.n_samples)
    sentence_length = {s[0]: len(s) for s in SENTENCES}
    for pair, start in zip(pairs(data._samples(np.zeros_like(here), here)), expected, strict=True):
        dropped = pair.a[0] - start
        assert dropped == 0 if pair.padding else 0 <= dropped < L
        assert sentence_length[start] < L


def test_long_sentences_are_read_throughout_and_near_the_anchor(tmp_path: Path) -> None:
    """Sentences of three sequences: samples begin inside them, and all their tokens are read."""
    documents = [[[list(range(5 + 89 * d, 94 + 89 * d))] for d in range(4)]]  # 89 tokens and [SEP], three samples
    data = make(write_corpus(tmp_path, documents), "mlm+nsp")
    assert data.n_samples == 12
    here = np.arange(12)
    seen: set[int] = set()
    for epoch in range(400):
        for sample, pair in enumerate(pairs(data._samples(np.full_like(here, epoch), here))):
            seen.update(pair.a)
            document, offset = divmod(pair.a[0] - 5, 89)
            assert document == sample // 3
            first = max(0, sample % 3 * 30 - (L - 4))
            assert first <= offset
            assert offset + len(pair.a) <= first + 2 * (L - 3)
            assert (pair.b[0] - 5) % 89 + len(pair.b) <= 2 * (L - 3), "a foreign B strays from its sentence's start"
    assert seen == set(range(5, 5 + 4 * 89))


def test_every_sample_once_an_epoch(tmp_path: Path) -> None:
    """Sentences as long as the stride, each its own document: an epoch has each as A once."""
    documents = [[[list(range(5 + 29 * d, 34 + 29 * d))] for d in range(100)]]  # 29 tokens and [SEP]
    data = make(write_corpus(tmp_path, documents), "mlm+nsp")
    assert data.n_samples == 100
    for epoch in range(3):
        found = pairs(data.batch(np.arange(epoch * 100, (epoch + 1) * 100)))
        assert sorted((pair.a[0] - 5) // 29 for pair in found) == list(range(100))


def test_tiniest_sequence(corpus: Any) -> None:
    found = pairs(make(corpus, "mlm+nsp", seq_len=5).batch(np.arange(500)))
    assert all(len(pair.a) == len(pair.b) == 1 for pair in found)


def test_truncated_lengths_drop_from_the_longer() -> None:
    """Equal to dropping one token at a time, as BERT's create_pretraining_data does."""
    for budget in range(2, 9):
        for length_a in range(1, 15):
            for length_b in range(1, 15):
                a, b = length_a, length_b
                while a + b > budget:
                    a, b = (a - 1, b) if a > b else (a, b - 1)
                assert truncated_lengths(length_a, length_b, budget) == (a, b)


# --- bad input


def test_bad_settings(corpus: Any, tmp_path: Path) -> None:
    for changes, message in [
        ({"objective": "nsp"}, "objective: got 'nsp', expected 'mlm' or"),
        ({"seq_len": 4}, "seq_len: got 4, expected at least 5"),
        ({"seed": -1}, "seed: got -1"),
        ({"mask_fraction": 0.0}, "mask_fraction: got 0.0"),
        ({"seq_len": 100_000}, "no sample, each of its 3 shards holds less than the 99998 tokens .*lower seq_len"),
    ]:
        with pytest.raises(ValueError, match=message):
            make(corpus, **changes)
    with pytest.raises(ValueError, match="split 'heldout': no sample"):
        PretrainingData(corpus, "heldout", "mlm", L, 0.15, 0)
    one_document = write_corpus(tmp_path, [[[[9] * 10] * 10]])
    with pytest.raises(ValueError, match=r"one document, expected at least 2.*use objective 'mlm'"):
        make(one_document, "mlm+nsp")
    assert make(one_document, "mlm").n_samples == 3


def test_bad_counters(corpus: Any) -> None:
    data = make(corpus)
    for consumed in (np.array([-1]), np.zeros((2, 2), dtype=np.int64), np.array([0.0])):
        with pytest.raises(ValueError, match="consumed: got"):
            data.batch(consumed)
    assert data.batch(np.empty(0, dtype=np.int64)).input_ids.shape == (0, L)
