"""The official figures of SQuAD 1.1, SQuAD 2.0 and MNLI, number for number.

SQuAD's evaluate-v1.1.py and evaluate-v2.0.py (Rajpurkar et al. 2016, 2018) compare answers in lower case, without ASCII
punctuation, without the words a, an, the, and with single spaces, in that order.
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

from pipeline.tasks.examples import Pair, Question

Figures = dict[str, float]
_PUNCTUATION = frozenset(string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalized(answer: str) -> str:
    """As it is compared."""
    bare = "".join(character for character in answer.lower() if character not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact(gold: str, said: str) -> float:
    """1 if both are compared equal, else 0."""
    return float(normalized(gold) == normalized(said))


def f1(gold: str, said: str, empty_is_an_answer: bool) -> float:
    """Of the words that both have. `empty_is_an_answer` (SQuAD 2.0): where either has no word, 1 if both have none; in SQuAD
    1.1 two answers without a word have nothing in common: 0."""
    gold_words, said_words = normalized(gold).split(), normalized(said).split()
    if empty_is_an_answer and not (gold_words and said_words):
        return float(gold_words == said_words)
    same = (Counter(gold_words) & Counter(said_words)).total()
    if same == 0:
        return 0.0
    precision, recall = same / len(said_words), same / len(gold_words)
    return 2 * precision * recall / (precision + recall)


def squad1(questions: Sequence[Question], said: Mapping[str, str]) -> Figures:
    """exact_match and f1, in percent: the best over the gold answers, mean over the questions. One that is not answered counts
    0, and `unanswered` says how many."""
    answered = [question for question in questions if question.id in said]
    golds = [[answer.text for answer in question.answers] for question in answered]
    em = sum(max(exact(g, said[q.id]) for g in gold) for q, gold in zip(answered, golds, strict=True))
    f1_sum = sum(max(f1(g, said[q.id], False) for g in gold) for q, gold in zip(answered, golds, strict=True))
    total = len(questions)
    return {
        "exact_match": 100.0 * em / total,
        "f1": 100.0 * f1_sum / total,
        "total": total,
        "unanswered": total - len(answered),
    }


def squad2(
    questions: Sequence[Question],
    said: Mapping[str, str],
    na_prob: Mapping[str, float] | None = None,
    na_prob_threshold: float = 1.0,
) -> Figures:
    """exact and f1 in percent, of all and of those with (HasAns_) and without (NoAns_) an answer.

    `na_prob`: how sure the model is that there is none, any number that grows with it; above the threshold the answer counts
    as "". With it there are best_exact and best_f1 too, at the thresholds that are best on these data. ValueError if a question
    has no prediction or no na_prob: the official script breaks there.
    """
    missing = [
        question.id for question in questions if question.id not in said or (na_prob is not None and question.id not in na_prob)
    ]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(questions)} questions have no prediction, the first is {missing[0]!r}: SQuAD 2.0 is "
            'scored on all of them; say "" where there is no answer'
        )
    has_answer = {question.id: bool(question.answers) for question in questions}
    raw: dict[str, dict[str, float]] = {"exact": {}, "f1": {}}
    for question in questions:
        golds = [answer.text for answer in question.answers if normalized(answer.text)] or [""]
        raw["exact"][question.id] = max(exact(gold, said[question.id]) for gold in golds)
        raw["f1"][question.id] = max(f1(gold, said[question.id], True) for gold in golds)
    figures: Figures = {}
    for prefix, ids in (
        ("", list(has_answer)),
        ("HasAns_", [id_ for id_, has in has_answer.items() if has]),
        ("NoAns_", [id_ for id_, has in has_answer.items() if not has]),
    ):
        if ids:
            for name, scores in raw.items():
                kept = (
                    _at_threshold(scores[i], has_answer[i], None if na_prob is None else na_prob[i], na_prob_threshold)
                    for i in ids
                )
                figures[prefix + name] = 100.0 * sum(kept) / len(ids)
            figures[f"{prefix}total"] = len(ids)
    if na_prob is not None:
        for name, scores in raw.items():
            best, threshold = best_threshold(said, scores, na_prob, has_answer)
            figures |= {f"best_{name}": best, f"best_{name}_thresh": threshold}
    return figures


def _at_threshold(score: float, has_answer: bool, na_prob: float | None, threshold: float) -> float:
    return float(not has_answer) if na_prob is not None and na_prob > threshold else score


def best_threshold(
    said: Mapping[str, str], scores: Mapping[str, float], na_prob: Mapping[str, float], has_answer: Mapping[str, bool]
) -> tuple[float, float]:
    """(best figure in percent, its threshold): from answering nothing on, questions are answered one by one, surest first."""
    score = best = float(sum(not has for has in has_answer.values()))
    threshold = 0.0
    for id_ in sorted((i for i in na_prob if i in scores), key=lambda i: na_prob[i]):
        score += scores[id_] if has_answer[id_] else -float(bool(said[id_]))
        if score > best:
            best, threshold = score, na_prob[id_]
    return 100.0 * best / len(scores), threshold


def accuracy(pairs: Sequence[Pair], said: Mapping[str, int]) -> Figures:
    """accuracy in percent. ValueError if a pair has no prediction."""
    missing = [pair.id for pair in pairs if pair.id not in said]
    if missing:
        raise ValueError(f"{len(missing)} of {len(pairs)} pairs have no prediction, the first is {missing[0]!r}")
    return {"accuracy": 100.0 * sum(said[pair.id] == pair.label for pair in pairs) / len(pairs), "total": len(pairs)}
