"""What a task's examples are, whatever file they come from."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

TaskName = Literal["mnli", "squad1", "squad2"]
TASKS: tuple[TaskName, ...] = ("mnli", "squad1", "squad2")
LABELS = ("entailment", "neutral", "contradiction")  # of MNLI, by their numbers


@dataclass(frozen=True)
class Pair:
    """Two sentences of MNLI; `label` is a number of LABELS, None where it is asked for."""

    id: str
    first: str
    second: str
    label: int | None


@dataclass(frozen=True)
class Answer:
    """A gold answer: context[start : start + len(text)] == text."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """A question of SQuAD. Without answers it cannot be answered from its context (SQuAD 2.0), or it is the user's own."""

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...] = ()


def check_ids(ids: Iterable[str], where: str) -> None:
    """ValueError naming the first id that stands there twice."""
    seen: set[str] = set()
    for id_ in ids:
        if id_ in seen:
            raise ValueError(f"{where}: id {id_!r} is there twice: every example needs an id of its own")
        seen.add(id_)


def check_question(question: Question, where: str) -> None:
    """ValueError for an empty question or context, or an answer that does not stand where it is said to stand."""
    here = f"{where}: question {question.id!r}"
    if not question.context.strip() or not question.question.strip():
        raise ValueError(f"{here} has an empty {'context' if not question.context.strip() else 'text'}: remove it")
    for answer in question.answers:
        found = question.context[answer.start : answer.start + len(answer.text)] if answer.start >= 0 else ""
        if not answer.text or found != answer.text:
            elsewhere = question.context.find(answer.text) if answer.text else -1
            place = f"stands at {elsewhere}" if elsewhere >= 0 else "is not in its context"
            raise ValueError(
                f"{here}: its answer {answer.text!r} at character {answer.start} {place}, where the context has {found!r}"
            )
