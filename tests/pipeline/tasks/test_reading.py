"""The official formats, and what is refused of them."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.tasks.examples import Answer, Pair, Question
from pipeline.tasks.files import files_of
from pipeline.tasks.hub import hub_pairs, hub_questions
from pipeline.tasks.mnli import read_mnli
from pipeline.tasks.sets import load_set
from pipeline.tasks.squad import read_squad

GOOD: dict[str, Any] = {"id": "1", "question": "Who?", "answers": [{"text": "cat", "answer_start": 4}]}


def squad(path: Path, *qas: dict[str, Any], context: str = "The cat 😀 sat.") -> Path:
    content = json.dumps({"version": "x", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(qas)}]}]})
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return path


def test_squad_is_read(tmp_path: Path) -> None:
    after_emoji = {**GOOD, "id": "2", "answers": [{"text": "sat", "answer_start": 10}]}
    assert read_squad(squad(tmp_path / "dev.json.gz", GOOD, after_emoji), "squad1") == [
        Question("1", "Who?", "The cat 😀 sat.", (Answer("cat", 4),)),
        Question("2", "Who?", "The cat 😀 sat.", (Answer("sat", 10),)),
    ]


@pytest.mark.parametrize(
    ("changes", "task", "words"),
    [
        (
            {"answers": [{"text": "cat", "answer_start": 5}]},
            "squad1",
            "'cat' at character 5 stands at 4, where",
        ),
        ({"answers": [{"text": "dog", "answer_start": 4}]}, "squad1", "is not in its context"),
        ({"answers": [{"text": "cat", "answer_start": -10}]}, "squad1", "stands at 4"),
        ({"answers": []}, "squad1", "has no answers"),
        ({"question": " "}, "squad1", "empty text"),
        ({"question": 3}, "squad1", "not in SQuAD's format"),
        ({"is_impossible": False}, "squad1", "this is SQuAD 2.0"),
        ({}, "squad2", "this is SQuAD 1.1"),
        ({"is_impossible": True}, "squad2", "impossible, yet it has answers"),
        ({"is_impossible": False, "answers": []}, "squad2", "has no answers"),
        ({"answers": [{"text": "cat"}]}, "squad1", "answer_start"),
        ({"is_impossible": "false", "answers": []}, "squad2", "true or false, got 'false'"),
    ],
)
def test_a_bad_question(tmp_path: Path, changes: dict[str, Any], task: Any, words: str) -> None:
    path = squad(tmp_path / "dev.json", {**GOOD, **changes})
    with pytest.raises(ValueError, match=words) as caught:
        read_squad(path, task)
    assert str(path) in str(caught.value)


def test_a_bad_squad_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="id '1' is there twice"):
        read_squad(squad(tmp_path / "dev.json", GOOD, GOOD), "squad1")
    with pytest.raises(ValueError, match="empty context"):
        read_squad(squad(tmp_path / "dev.json", {**GOOD, "answers": [], "is_impossible": True}, context=" \n"), "squad2")
    for content, words in (
        (b"{", "not the JSON"),
        (b"[1]", "not SQuAD"),
        (b"\xff", "UTF-8"),
        (b'{"data": []}', "no question"),
        (b"[" * 99_999, "JSON"),
    ):
        (tmp_path / "dev.json").write_bytes(content)
        with pytest.raises(ValueError, match=words):
            read_squad(tmp_path / "dev.json", "squad1")
    (tmp_path / "dev.json.gz").write_bytes(gzip.compress(b"{}" * 99)[:-9])
    with pytest.raises(ValueError, match="not a whole"):
        read_squad(tmp_path / "dev.json.gz", "squad1")


JSONL = '{"gold_label": "%s", "sentence1": "He sat.", "sentence2": "He \\"slept\\"."%s}\n'


def test_mnli_is_read(tmp_path: Path) -> None:
    path = tmp_path / "dev_matched.jsonl"
    path.write_text(JSONL % ("neutral", "") + JSONL % ("-", "") + JSONL % ("contradiction", ', "pairID": "9c"'))
    assert read_mnli(path) == [Pair("0", "He sat.", 'He "slept".', 1), Pair("9c", "He sat.", 'He "slept".', 2)]
    path = tmp_path / "dev_matched.tsv"  # GLUE's: no quoting, and an unpaired quote is text
    path.write_text('index\tpairID\tsentence1\tsentence2\tlabel1\tgold_label\n0\t7e\t"5" long\tIt "is.\tneutral\tentailment\n')
    assert read_mnli(path) == [Pair("7e", '"5" long', 'It "is.', 0)]
    header, long = "\ufeffsentence1\tsentence2\tgold_label\r\n", "x" * 200_000  # as Windows writes it; a carriage return within
    path.write_bytes(f"{header}a\rb\u2028c\t{long}\tneutral\r\n".encode())
    assert read_mnli(path) == [Pair("0", "a\rb\u2028c", long, 1)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (JSONL % ("maybe", ""), "line 1: gold_label 'maybe', expected one of entailment"),
        ("\n\n" + JSONL % ("maybe", ""), "line 3: gold_label"),
        (JSONL % ("neutral", ', "pairID": "1"') * 2, "id '1' is there twice"),
        ('{"premise": "x"}\n', "no sentence1, sentence2, gold_label"),
        ('{"data": []}', "not MNLI"),
        ("[1]\n", "expected an object"),
        ("{\n", "line 1: not JSON"),
        (JSONL % ("-", ""), "no labelled pair"),
        ((JSONL % ("neutral", "")).replace("He sat.", " "), "sentence1 is empty"),
    ],
)
def test_bad_mnli(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "dev.jsonl").write_text(content)
    with pytest.raises(ValueError, match=words):
        read_mnli(tmp_path / "dev.jsonl")


def test_the_files_of_a_folder(tmp_path: Path) -> None:
    for name in ("train-v1.1.json", "train-v2.0.json.gz", "dev-v1.1.json", "train.jsonl.gz", "dev_mismatched.tsv", "dev.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in files_of("squad1", tmp_path, "train")] == ["train-v1.1.json"]
    assert [path.name for path in files_of("squad2", tmp_path, "train")] == ["train-v2.0.json.gz"]
    with pytest.raises(ValueError, match="no dev file of squad2"):
        files_of("squad2", tmp_path, "dev")
    with pytest.raises(ValueError, match="no such folder"):
        files_of("squad2", tmp_path / "none", "dev")
    assert [path.name for path in files_of("mnli", tmp_path, "dev")] == ["dev_mismatched.tsv"]


def test_mnli_has_two_dev_parts_and_a_set_knows_its_files(tmp_path: Path) -> None:
    for name in ("train_a.jsonl", "train_b.jsonl", "dev_matched.jsonl", "dev_mismatched.jsonl"):
        (tmp_path / name).write_text(JSONL % ("neutral", ""))
    found = load_set("mnli", tmp_path)
    assert [example.id for example in found.train] == ["train_a.jsonl:0", "train_b.jsonl:0"]
    assert {part: len(pairs) for part, pairs in found.dev.items()} == {"matched": 1, "mismatched": 1}
    (tmp_path / "train_b.jsonl").write_text(JSONL % ("entailment", ""))
    assert load_set("mnli", tmp_path).sha256 != found.sha256


def test_rows_of_the_hub() -> None:
    row = {"id": "1", "question": "Who?", "context": "The cat.", "answers": {"text": ["cat"], "answer_start": [4]}}
    assert hub_questions([row], "squad1", "hub") == [Question("1", "Who?", "The cat.", (Answer("cat", 4),))]
    empty = {**row, "answers": {"text": [], "answer_start": []}}
    assert hub_questions([empty], "squad2", "hub") == [Question("1", "Who?", "The cat.")]
    with pytest.raises(ValueError, match="no answers"):
        hub_questions([empty], "squad1", "hub")
    assert hub_pairs([{"premise": "x", "hypothesis": "y", "label": 2, "idx": 7}], "hub") == [Pair("7", "x", "y", 2)]
