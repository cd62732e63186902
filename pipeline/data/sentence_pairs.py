"""BERT's sentence pairs (Devlin et al. 2019, appendix A.2), [CLS] A [SEP] B [SEP], padded to L tokens.

A pair is a function of its anchor, an offset into a shard's stream of tokens, and of six uniform numbers:

- The anchor is snapped back to the start of the sentence it lies in, but by at most L - 4 tokens, so that a sentence longer
  than that is read on by the samples that begin inside it. An anchor on a document's closing [SEP] belongs to the last
  sentence.
- Whole sentences of that document are collected from there until they hold L - 3 tokens or the document ends; what is
  beyond 2 (L - 3) tokens is left out, so that a very long sentence stays near its anchor.
- They are cut into A and B at a sentence boundary drawn uniformly. With probability 1/2, and always when only one sentence
  was collected, B is instead text from a random sentence of a random other document of the split on (all uniform),
  collected likewise until it reaches L - 3 tokens together with A; its label is 1.
- Too long a pair loses tokens from the longer of the two until it fits (from B at a tie), as BERT's does. The loss is split
  between its front and its back uniformly (BERT tosses a coin for each token).

So label 1 is a little more frequent than 1/2, by half the share of the anchors with one sentence left.

Shapes: B samples, L tokens of a sequence, S shards, U uniform numbers of a sample. A document has a number in its shard, and
one in its split, counted through all shards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.batch import Ints
from preprocessing.corpus.reader import CLS_ID, PAD_ID, SEP_ID, Shard

UNIFORMS_PER_PAIR = 6


class Span(NamedTuple):
    """Tokens [start, end) of a shard's stream."""

    shard: int
    start: int
    end: int

    @property
    def length(self) -> int:
        """In tokens."""
        return self.end - self.start


@dataclass(frozen=True)
class Split:
    """The shards of a split, and how many documents it has up to the end of each, [S]."""

    shards: Sequence[Shard]
    document_ends: Ints

    @property
    def n_documents(self) -> int:
        """Of all shards."""
        return int(self.document_ends[-1]) if len(self.document_ends) else 0

    def first_document(self, shard: int) -> int:
        """The number in the split of a shard's first document."""
        return int(self.document_ends[shard - 1]) if shard else 0


def split_of(shards: Sequence[Shard]) -> Split:
    """With its documents counted."""
    return Split(shards, np.cumsum([len(shard.document_ends) for shard in shards], dtype=np.int64))


def pair_rows(
    split: Split, seq_len: int, shard_B: Ints, anchor_B: Ints, uniforms_BU: NDArray[np.float64]
) -> tuple[Ints, Ints, Ints, Ints]:
    """(tokens [B, L], token types [B, L], lengths [B], labels [B]) of the pairs at these anchors, not masked yet."""
    tokens_BL = np.full((len(shard_B), seq_len), PAD_ID, dtype=np.int64)
    types_BL = np.zeros_like(tokens_BL)
    length_B, label_B = np.empty(len(shard_B), dtype=np.int64), np.empty(len(shard_B), dtype=np.int64)
    for b, (shard, anchor, uniforms_U) in enumerate(zip(shard_B, anchor_B, uniforms_BU, strict=True)):
        span_a, span_b, label_B[b] = sentence_pair(split, seq_len, int(shard), int(anchor), uniforms_U.tolist())
        length_B[b] = _write(split.shards, tokens_BL[b], types_BL[b], (span_a, span_b))
    return tokens_BL, types_BL, length_B, label_B


def sentence_pair(split: Split, seq_len: int, shard: int, anchor: int, uniforms_U: list[float]) -> tuple[Span, Span, int]:
    """Spans A and B, cut to fit into L - 3 tokens, and the label: 0 if B follows A, 1 if it is of another document."""
    u_cut, u_label, u_document, u_sentence, u_trim_a, u_trim_b = uniforms_U
    budget, stream = seq_len - 3, split.shards[shard]
    document = _search(stream.document_ends, anchor, "right")
    ends = stream.sentence_ends(document)
    first = min(_search(ends, anchor, "right"), len(ends) - 1)
    start = int(ends[first - 1]) if first else stream.document_start(document)
    start = max(start, anchor - (budget - 1))
    stop = _collect(ends, start, budget)
    cut = first + 1 + int(u_cut * max(1, stop - first - 1))  # A is sentences [first, cut)
    end = min(int(ends[stop - 1]), start + 2 * budget)
    a = Span(shard, start, min(int(ends[cut - 1]), end))
    is_other = stop - first == 1 or u_label < 0.5
    if is_other:
        other = _other_document(split, split.first_document(shard) + document, u_document)
        b = _text_of(split, other, u_sentence, budget - a.length, longest=2 * budget)
    else:
        b = Span(shard, a.end, end)
    length_a, length_b = truncated_lengths(a.length, b.length, budget)
    return _window(a, length_a, u_trim_a), _window(b, length_b, u_trim_b), int(is_other)


def truncated_lengths(length_a: int, length_b: int, budget: int) -> tuple[int, int]:
    """Lengths after tokens are dropped one by one, from the longer (from B at a tie), until both fit in `budget`."""
    length_b = min(length_b, max(budget - length_a, budget // 2))
    return min(length_a, budget - length_b), length_b


def _other_document(split: Split, document: int, u: float) -> int:
    """A document of the split that is not this one, drawn uniformly by u in [0, 1); both are numbers in the split."""
    other = int(u * (split.n_documents - 1))
    return other + (other >= document)


def _text_of(split: Split, document: int, u: float, budget: int, longest: int) -> Span:
    """Text of a document from a sentence on that u draws: at least `budget` tokens if it has them, at most `longest`."""
    shard = _search(split.document_ends, document, "right")
    stream, in_shard = split.shards[shard], document - split.first_document(shard)
    ends = stream.sentence_ends(in_shard)
    first = int(u * len(ends))
    start = int(ends[first - 1]) if first else stream.document_start(in_shard)
    stop = _collect(ends, start, max(1, budget))
    return Span(shard, start, min(int(ends[stop - 1]), start + longest))


def _window(span: Span, length: int, u: float) -> Span:
    """`length` consecutive tokens of a span, the first of them drawn uniformly by u in [0, 1)."""
    start = span.start + int(u * (span.length - length + 1))
    return Span(span.shard, start, start + length)


def _write(shards: Sequence[Shard], row_L: Ints, types_L: Ints, spans: tuple[Span, Span]) -> int:
    """Write [CLS] A [SEP] B [SEP] and its token types into a row of padding; returns its length."""
    row_L[0] = CLS_ID
    here = 1
    for token_type, (shard, start, end) in enumerate(spans):
        sep = here + end - start
        row_L[here:sep] = shards[shard].tokens[start:end]
        row_L[sep] = SEP_ID
        types_L[here : sep + 1] = token_type
        here = sep + 1
    return here


def _collect(sentence_ends: NDArray[np.integer], start: int, budget: int) -> int:
    """How many sentences of the document end by the first one that brings `budget` tokens from `start`, or by all."""
    return min(_search(sentence_ends, start + budget, "left") + 1, len(sentence_ends))


def _search(sorted_values: NDArray[np.integer], value: int, side: Literal["left", "right"]) -> int:
    """searchsorted with a value of the array's own type; for another type, numpy would convert a copy of the array."""
    return int(sorted_values.searchsorted(sorted_values.dtype.type(value), side))
