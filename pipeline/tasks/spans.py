"""Start and end logits to answers: candidates of each window, n-best of a question, and whether to answer at all.

    null score       the least over a question's windows of start[CLS] + end[CLS]
    null odds        null score - score of the best candidate; the answer is "" where they exceed a threshold τ (SQuAD 2.0)

Shapes: L tokens of a row.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.tasks.examples import Question
from pipeline.tasks.offsets import Tokens
from pipeline.tasks.windows import Window, text_of

Candidate = tuple[float, int, int]  # start logit + end logit, first and last token of the context


@dataclass(frozen=True)
class WindowAnswers:
    """What one window says: the null score, and its best candidates."""

    window: int
    null_score: float
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Answers:
    """What a model says of one question. `text`: the best candidate, whatever the null score; `null_odds` None if there is no
    candidate at all. `n_best`: {"text", "score", "probability"} each, the empty answer among them."""

    text: str
    null_odds: float | None
    n_best: list[dict[str, Any]]

    def at(self, threshold: float) -> str:
        """The answer: "" where the odds of none exceed the threshold."""
        return "" if self.null_odds is None or self.null_odds > threshold else self.text


def window_answers(
    number: int,
    window: Window,
    start_L: NDArray[np.floating],
    end_L: NDArray[np.floating],
    n_best: int,
    longest: int,
) -> WindowAnswers:
    """The `n_best` highest sums of a start and an end, each among the `n_best` highest of its kind: both in the context, the
    end not before the start, at most `longest` tokens, the start where this window has the most context around it. ValueError
    if a logit is not finite."""
    looked_at = [0, *range(window.offset, window.offset + window.stop - window.first)]
    if not (np.isfinite(start_L[looked_at]).all() and np.isfinite(end_L[looked_at]).all()):
        raise ValueError(f"the logits of question number {window.question} are not finite (NaN or infinity): no answer follows")
    starts, ends = _highest(start_L, window, n_best), _highest(end_L, window, n_best)
    found = [
        (float(start_L[i] + end_L[j]), int(i - window.offset + window.first), int(j - window.offset + window.first))
        for i in starts
        for j in ends
        if i <= j < i + longest and window.best[i - window.offset]
    ]
    found.sort(key=lambda candidate: (-candidate[0], candidate[1], candidate[2]))
    return WindowAnswers(number, float(start_L[0] + end_L[0]), tuple(found[:n_best]))


def _highest(logits_L: NDArray[np.floating], window: Window, count: int) -> NDArray[np.int64]:
    """Places of the highest logits within the context, the highest first."""
    there = logits_L[window.offset : window.offset + window.stop - window.first]
    return window.offset + np.argsort(-there, kind="stable")[:count]


def answers(question: Question, tokens: Tokens, said: Iterable[WindowAnswers], n_best: int) -> Answers:
    """Of all windows of one question together: equal texts count once, at their best score."""
    said = list(said)
    null_score = min(one.null_score for one in said)
    ranked = sorted((c for one in said for c in one.candidates), key=lambda c: (-c[0], c[1], c[2]))
    scores: dict[str, float] = {}
    for score, first, last in ranked:
        text = text_of(question, tokens, (first, last))
        if text and text not in scores:
            scores[text] = score
        if len(scores) == n_best:
            break
    best = next(iter(scores), None)
    odds = None if best is None else null_score - scores[best]
    everything = sorted([*scores.items(), ("", null_score)], key=lambda item: -item[1])
    highest = everything[0][1]
    total = sum(math.exp(score - highest) for _, score in everything)
    listed = [{"text": text, "score": score, "probability": math.exp(score - highest) / total} for text, score in everything]
    return Answers(best or "", odds, listed)


def predictions(found: Mapping[str, Answers], threshold: float) -> dict[str, str]:
    """{id: answer} at a threshold of the null odds."""
    return {id_: one.at(threshold) for id_, one in found.items()}


def by_question(said: Sequence[WindowAnswers], windows: Sequence[Window], questions: int) -> list[list[WindowAnswers]]:
    """What the windows of each question say; ValueError if a window is missing."""
    grouped: list[list[WindowAnswers]] = [[] for _ in range(questions)]
    for one in sorted(said, key=lambda answer: answer.window):
        grouped[windows[one.window].question].append(one)
    assert len({one.window for one in said}) == len(windows), "every window is answered by some rank"
    return grouped
