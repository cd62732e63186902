"""The official figures, worked out by hand from the rules of evaluate-v1.1.py and evaluate-v2.0.py."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.tasks import metrics
from pipeline.tasks.examples import Answer, Pair, Question
from pipeline.tasks.score import score_files


def question(id_: str, *golds: str) -> Question:
    return Question(id_, "?", " ".join(golds) or "x", tuple(Answer(gold, 0) for gold in golds))


@pytest.mark.parametrize(
    ("answer", "compared"),
    [
        ("The  Cat,\tsat.", "cat sat"),
        ("A.D. 50", "ad 50"),  # "a.d." is no article once its points are gone
        ("a-the-an", "athean"),  # punctuation goes first, and joins the words
        ("an the a", ""),
        ("Théâtre d’Orsay", "théâtre d’orsay"),  # only ASCII's punctuation; a typographic apostrophe stays
        ("the\u00a0end", "end"),  # white space of any kind
        ("İ", "i̇"),  # str.lower, not a folding
        ("ﬁ ½", "ﬁ ½"),
        ("$ 3,000!", "3000"),
        ("theatre a1", "theatre a1"),
        ("", ""),
    ],
)
def test_what_is_compared(answer: str, compared: str) -> None:
    assert metrics.normalized(answer) == compared


@pytest.mark.parametrize(
    ("gold", "said", "expected"),
    [
        ("the big red dog", "a red dog", 2 * 1 * (2 / 3) / (1 + 2 / 3)),
        ("dog dog cat", "dog dog dog", 2 * (2 / 3) * (2 / 3) / (2 / 3 + 2 / 3)),  # a multiset: two dogs are common
        ("cat", "dog", 0.0),
        ("cat", "", 0.0),
    ],
)
def test_f1(gold: str, said: str, expected: float) -> None:
    assert metrics.f1(gold, said, True) == metrics.f1(gold, said, False) == expected


def test_two_answers_without_a_word_are_equal_in_2_and_have_nothing_in_common_in_1() -> None:
    assert metrics.f1("the", "", True) == 1
    assert metrics.f1("the", "a", False) == 0
    assert metrics.exact("the", "") == 1


def test_squad_1_takes_the_best_gold_and_counts_what_is_not_answered() -> None:
    questions = [question("1", "Cat", "black cat"), question("2", "dog"), question("3", "the"), question("4", "x")]
    figures = metrics.squad1(questions, {"1": "the black cat", "2": "big dog", "3": ""})
    assert figures == {
        "exact_match": 100 * (1 + 0 + 1 + 0) / 4,
        "f1": 100 * (1 + 2 / 3 + 0 + 0) / 4,
        "total": 4,
        "unanswered": 1,
    }


SQUAD2 = [question("a", "cat", "the"), question("b", "dog food"), question("c"), question("d")]
SAID2 = {"a": "cat", "b": "food", "c": "", "d": "cat"}


def test_squad_2_by_kind_of_question() -> None:
    figures = metrics.squad2(SQUAD2, SAID2)
    assert figures == {
        "exact": 50.0,
        "f1": 100 * (1 + 2 / 3 + 1 + 0) / 4,
        "total": 4,
        "HasAns_exact": 50.0,
        "HasAns_f1": 100 * (1 + 2 / 3) / 2,
        "HasAns_total": 2,
        "NoAns_exact": 50.0,
        "NoAns_f1": 50.0,
        "NoAns_total": 2,
    }


def test_a_gold_without_a_word_is_none_in_squad_2() -> None:
    assert metrics.squad2([question("a", "the")], {"a": ""})["exact"] == 100  # its only gold is ""
    assert metrics.squad2([question("a", "cat", "the")], {"a": ""})["exact"] == 0


def test_squad_2_above_the_threshold_nothing_is_answered() -> None:
    na_prob = {"a": 3.0, "b": -1.0, "c": 0.0, "d": 2.0}
    figures = metrics.squad2(SQUAD2, SAID2, na_prob, na_prob_threshold=1.0)
    assert figures["exact"] == 100 * (0 + 0 + 1 + 1) / 4  # a is given up, d is put right
    assert figures["f1"] == 100 * (0 + 2 / 3 + 1 + 1) / 4
    # best, from nothing answered (2): b +0, c +0 (its answer is ""), d -1, a +1
    assert (figures["best_exact"], figures["best_exact_thresh"]) == (50.0, 0.0)
    # of F1: 2, b 2 2/3 at -1, c the same, d 1 2/3, a 2 2/3
    assert (figures["best_f1"], figures["best_f1_thresh"]) == (100 * (2 + 2 / 3) / 4, -1.0)


def test_squad_2_is_scored_on_all_questions() -> None:
    with pytest.raises(ValueError, match=r"1 of 4 questions have no prediction, the first is 'd'"):
        metrics.squad2(SQUAD2, {"a": "", "b": "", "c": ""})


def test_accuracy() -> None:
    pairs = [Pair(str(number), "x", "y", number % 3) for number in range(4)]
    assert metrics.accuracy(pairs, {"0": 0, "1": 1, "2": 0, "3": 1})["accuracy"] == 50
    with pytest.raises(ValueError, match="the first is '3'"):
        metrics.accuracy(pairs, {"0": 0, "1": 1, "2": 0})


def squad_file(path: Path) -> Path:
    qas = [
        {"id": "a", "question": "who?", "answers": [{"text": "Cats", "answer_start": 0}], "is_impossible": False},
        {"id": "b", "question": "why?", "answers": [], "is_impossible": True},
    ]
    path.write_text(json.dumps({"version": "v2.0", "data": [{"paragraphs": [{"context": "Cats sleep.", "qas": qas}]}]}))
    return path


@pytest.mark.parametrize(
    ("predictions", "words"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ("{}", "that is empty"),
        ('{"a": 1, "b": ""}', "'a' has 1, expected an answer"),
        ('{"z": ""}', "predictions of another file"),
        ('{"a": ""}', "the first is 'b'"),
        ("[" * 99_999, "not JSON"),
    ],
)
def test_bad_predictions(tmp_path: Path, predictions: str, words: str) -> None:
    (tmp_path / "p.json").write_text(predictions)
    with pytest.raises(ValueError, match=words) as caught:
        score_files("squad2", tmp_path / "p.json", squad_file(tmp_path / "dev.json"))
    assert str(tmp_path / "p.json") in str(caught.value)


@pytest.mark.parametrize("threshold", ["0", "nan"])
def test_a_threshold_of_nothing(call: Callable[..., Any], tmp_path: Path, threshold: str) -> None:
    (tmp_path / "p.json").write_text('{"a": "cats", "b": ""}')
    (tmp_path / "odds.json").write_text('{"a": -1, "b": 2.5}')
    odds = ["--na-prob", tmp_path / "odds.json"] if threshold == "nan" else []
    files = (tmp_path / "p.json", squad_file(tmp_path / "dev.json"))
    code, _, error = call("score", "--task", "squad2", *files, *odds, "--na-prob-thresh", threshold)
    assert code == 2
    assert "--na-prob-thresh" in error


def test_files_are_scored(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"a": "cats", "b": "Cats"}')
    (tmp_path / "odds.json").write_text('{"a": -1, "b": 2.5}')
    data = squad_file(tmp_path / "dev.json")
    assert score_files("squad2", tmp_path / "p.json", data)["exact"] == 50
    assert score_files("squad2", tmp_path / "p.json", data, tmp_path / "odds.json", 1.0)["exact"] == 100
    huge = f'{{"a": 1{"0" * 400}, "b": 2.5}}'
    for odds, words in (('{"a": NaN, "b": 2.5}', "finite numbers"), (huge, "finite numbers"), ('{"a": 1}', "1 of 2 questions")):
        (tmp_path / "odds.json").write_text(odds)
        with pytest.raises(ValueError, match=words) as caught:
            score_files("squad2", tmp_path / "p.json", data, tmp_path / "odds.json")
        assert str(caught.value).startswith(f"{tmp_path / 'odds.json'}: ")
    pairs = tmp_path / "dev.jsonl"
    pairs.write_text('{"gold_label": "neutral", "sentence1": "x", "sentence2": "y"}\n')
    (tmp_path / "m.json").write_text('["neutral"]')
    assert score_files("mnli", tmp_path / "m.json", pairs)["accuracy"] == 100
    (tmp_path / "m.json").write_text('["maybe"]')
    with pytest.raises(ValueError, match="expected one of entailment"):
        score_files("mnli", tmp_path / "m.json", pairs)
