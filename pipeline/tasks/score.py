"""The official figures of anybody's predictions."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.tasks import metrics
from pipeline.tasks.examples import LABELS, Pair, Question, TaskName
from pipeline.tasks.files import parse_json, read_text
from pipeline.tasks.sets import Examples, read_examples


def score_files(
    task: TaskName, predictions: Path, data: Path, na_prob: Path | None = None, na_prob_threshold: float = 1.0
) -> metrics.Figures:
    """Of a file of predictions: for SQuAD {id: answer}; for MNLI {pairID: label's name}, or a list of names in the data's
    order. ValueError, naming the file, for what is no such file, or not of these data."""
    examples = read_examples(data, task)
    said = _read(predictions)
    odds = None if na_prob is None else _numbers(na_prob, examples)
    try:
        if task == "mnli":
            pairs = [example for example in examples if isinstance(example, Pair)]
            return metrics.accuracy(pairs, _labels(pairs, said))
        questions = [example for example in examples if isinstance(example, Question)]
        answers = _mapping(said, str, "an answer (text)")
        _check_known(answers, questions)
        if task == "squad1":
            return metrics.squad1(questions, answers)
        return metrics.squad2(questions, answers, odds, na_prob_threshold)
    except ValueError as error:
        raise ValueError(f"{predictions}: {error}") from error


def _read(path: Path) -> Any:
    return parse_json(read_text(path), f"{path}: not JSON")


def _mapping(values: Any, kind: type, what: str) -> dict[str, Any]:
    if not isinstance(values, dict) or not values:
        raise ValueError(f"expected an object of {what} by id, got {type(values).__name__}{' that is empty' * (values == {})}")
    for id_, value in values.items():
        if not isinstance(value, kind):
            raise ValueError(f"{id_!r} has {value!r}, expected {what}")
    return values


def _check_known(answers: Mapping[str, str], questions: list[Question]) -> None:
    if not {question.id for question in questions} & answers.keys():
        raise ValueError(f"none of its {len(answers)} ids is a question of the data: predictions of another file?")


def _numbers(path: Path, examples: Examples) -> dict[str, float]:
    """{id: number} of a file that has one of every question."""
    values = _read(path)
    if not isinstance(values, dict) or not all(_is_number(value) for value in values.values()):
        raise ValueError(f"{path}: expected an object of finite numbers by id, as null_odds.json")
    missing = [example.id for example in examples if example.id not in values]
    if missing:
        raise ValueError(
            f"{path}: no number for {len(missing)} of {len(examples)} questions, the first is {missing[0]!r}: the best "
            "thresholds are looked for on all of them"
        )
    return {id_: float(value) for id_, value in values.items()}


def _is_number(value: Any) -> bool:
    """JSON's integers have no limit, a float has."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _labels(pairs: list[Pair], said: Any) -> dict[str, int]:
    if isinstance(said, list):
        if len(said) != len(pairs):
            raise ValueError(f"{len(said)} labels for {len(pairs)} pairs with a gold label")
        said = {pair.id: name for pair, name in zip(pairs, said, strict=True)}
    names = _mapping(said, str, "a label (text)")
    for id_, name in names.items():
        if name not in LABELS:
            raise ValueError(f"{id_!r} has label {name!r}, expected one of {', '.join(LABELS)}")
    return {id_: LABELS.index(name) for id_, name in names.items()}
