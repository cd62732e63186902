"""Sentence pairs: next or not as labelled, cut as BERT cuts them, every sample once an epoch."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.batch import Batch
from pipeline.data.sentence_pairs import truncated_lengths
from preprocessing.corpus.reader import CLS_ID, SEP_ID
from tests.helpers.numbered_corpora import (
    DOCUMENTS,
    L,
    make,
    streams,
    unmasked,
    write_corpus,
)


def assert_binomial(hits: int, trials: int, p: float) -> None:
    """`hits` lies within 4.5 standard deviations of its mean."""
    assert abs(hits - trials * p) < 4.5 * math.sqrt(trials * p * (1 - p)), f"{hits} of {trials}, p = {p:.3f}"


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
