"""SQuAD 1.1 and 2.0 in the official JSON: {"version", "data": [{"title", "paragraphs": [{"context", "qas": […]}]}]}."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.tasks.examples import Answer, Question, TaskName, check_ids, check_question
from pipeline.tasks.files import parse_json, read_text


def read_squad(path: Path, task: TaskName) -> list[Question]:
    """The questions of a file (.json, or .json.gz), in its order. ValueError, naming file and question, for another task's
    data, missing answers, an answer that is not where it is said to be, an empty context, an id that is there twice."""
    values = parse_json(read_text(path), f"{path}: not the JSON of SQuAD")
    if not isinstance(values, dict) or not isinstance(values.get("data"), list):
        raise ValueError(f'{path}: not SQuAD: expected an object with "data", a list of articles; is it another task\'s file?')
    try:
        questions = list(_questions(values, path, task))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not in SQuAD's format: {type(error).__name__} {error}") from error
    if not questions:
        raise ValueError(f"{path}: no question in it")
    check_ids((question.id for question in questions), str(path))
    return questions


def _questions(values: Mapping[str, Any], path: Path, task: TaskName) -> Iterator[Question]:
    for article in values["data"]:
        for paragraph in article["paragraphs"]:
            for row in paragraph["qas"]:
                yield question_of({**row, "context": paragraph["context"]}, str(path), task)


def question_of(row: Mapping[str, Any], where: str, task: TaskName) -> Question:
    """One question, checked. `row`: id, question, context, answers [{text, answer_start}], and in SQuAD 2.0 is_impossible."""
    answers = tuple(Answer(answer["text"], answer["answer_start"]) for answer in row.get("answers", ()))
    question = Question(row["id"], row["question"], row["context"], answers)
    if not all(isinstance(text, str) for text in (question.id, question.question, question.context)):
        raise TypeError("id, question and context are to be texts")
    here = f"{where}: question {question.id!r}"
    if task == "squad1" and "is_impossible" in row:
        raise ValueError(f"{here} has is_impossible: this is SQuAD 2.0: --task squad2")
    if task == "squad2" and "is_impossible" not in row:
        raise ValueError(f"{here} has no is_impossible: this is SQuAD 1.1: --task squad1")
    impossible = row.get("is_impossible", False)
    if not isinstance(impossible, bool):
        raise TypeError(f"is_impossible is to be true or false, got {impossible!r}")
    if not answers and not impossible:
        raise ValueError(f"{here} has no answers: training and scoring need them")
    if answers and impossible:
        raise ValueError(f"{here} is impossible, yet it has answers")
    check_question(question, where)
    return question
