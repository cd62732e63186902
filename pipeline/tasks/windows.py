"""Question and context as the rows that the model reads: [CLS] question [SEP] context [SEP], a long context in overlapping
windows (Devlin et al. 2019's run_squad), and where the answer stands in them.

Shapes: W windows, L tokens of a row, N tokens of a context.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.tasks.examples import Answer, Question
from pipeline.tasks.offsets import Tokens
from preprocessing.corpus.reader import CLS_ID, SEP_ID

SPECIALS = 3  # [CLS] and two [SEP]


@dataclass(frozen=True)
class Window:
    """One row of a question: tokens [first, stop) of its context, which begin at place `offset` of the row; `best` says of
    each whether no other window has more of the context around it."""

    question: int
    first: int
    stop: int
    offset: int
    best: NDArray[np.bool_]

    def place(self, token: int) -> int:
        """Of a token of the context in the row."""
        return self.offset + token - self.first


def windows(question: int, question_tokens: int, context_tokens: int, seq_len: int, stride: int) -> list[Window]:
    """The windows over a context, each `stride` further on. ValueError if no token of the context fits beside the question."""
    room = seq_len - SPECIALS - question_tokens
    if room < 1:
        raise ValueError(
            f"data.seq_len = {seq_len} leaves no room for a context beside a question of {question_tokens} tokens: raise it"
        )
    firsts = [0]
    while firsts[-1] + room < context_tokens:
        firsts.append(firsts[-1] + min(stride, room))
    spans = [(first, min(first + room, context_tokens)) for first in firsts]
    owner = _owners(spans, context_tokens)
    return [
        Window(question, first, stop, question_tokens + 2, owner[first:stop] == number)
        for number, (first, stop) in enumerate(spans)
    ]


def _owners(spans: Sequence[tuple[int, int]], tokens: int) -> NDArray[np.int64]:
    """Of each token the window with the most context around it: the least of what is left and right of it counts, and a little
    the window's length; the first of several."""
    owner, best = np.zeros(tokens, dtype=np.int64), np.full(tokens, -1.0)
    for number, (first, stop) in enumerate(spans):
        token = np.arange(first, stop)
        score = np.minimum(token - first, stop - 1 - token) + 0.01 * (stop - first)
        better = score > best[first:stop]
        owner[first:stop][better], best[first:stop][better] = number, score[better]
    return owner


def fill_row(row_L: NDArray[np.int64], types_L: NDArray[np.int64], parts: tuple[NDArray[np.int64], NDArray[np.int64]]) -> int:
    """Write [CLS] A [SEP] B [SEP] and its token types into rows of padding and of 0; returns the length."""
    row_L[0], here = CLS_ID, 1
    for token_type, ids in enumerate(parts):
        sep = here + len(ids)
        row_L[here:sep], row_L[sep] = ids, SEP_ID
        types_L[here : sep + 1] = token_type
        here = sep + 1
    return here


def answer_tokens(answer: Answer, tokens: Tokens) -> tuple[int, int] | None:
    """(first, last) token of the context that has a character of the answer; None if none has."""
    end = answer.start + len(answer.text)
    inside = (tokens.ends_N > answer.start) & (tokens.starts_N < end) & (tokens.starts_N < tokens.ends_N)
    where = np.flatnonzero(inside)
    return (int(where[0]), int(where[-1])) if len(where) else None


def label(window: Window, span: tuple[int, int] | None) -> tuple[int, int]:
    """The places of the answer's first and last token in the row; (0, 0), [CLS], where it is not all in this window."""
    if span is None or span[0] < window.first or span[1] >= window.stop:
        return 0, 0
    return window.place(span[0]), window.place(span[1])


def text_of(question: Question, tokens: Tokens, span: tuple[int, int]) -> str:
    """The original characters from the span's first token to its last that has any: a lone "▁" has none, and stands where the
    next word begins."""
    starts_N, ends_N = (places_N[span[0] : span[1] + 1] for places_N in (tokens.starts_N, tokens.ends_N))
    return question.context[int(starts_N[0]) : int(ends_N[starts_N < ends_N].max(initial=0))]


def all_windows(
    question_ids: Sequence[NDArray[np.int64]], contexts: Sequence[Tokens], seq_len: int, stride: int
) -> Iterator[Window]:
    """Of every question, in their order."""
    for number, (ids, tokens) in enumerate(zip(question_ids, contexts, strict=True)):
        yield from windows(number, len(ids), len(tokens.ids_N), seq_len, stride)
