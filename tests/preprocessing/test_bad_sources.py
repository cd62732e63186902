"""A source that cannot be read: exit code 2, one line that says where and what helps, nothing left behind."""

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preprocessing.__main__ import main
from tests.helpers.running import assert_refused, run_cli

Rows = list[dict[str, Any]]


def good_lines(topics: Rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in topics[:3]).encode()


def empty(path: Path, topics: Rows) -> Path:
    path.write_bytes(b"\n\n")
    return path


def matches_nothing(path: Path, topics: Rows) -> Path:
    return path.with_name("*.nothing.jsonl")


def truncated(suffix: str, compress: Callable[[bytes], bytes]) -> Callable[[Path, Rows], Path]:
    def bad(path: Path, topics: Rows) -> Path:
        path = path.with_suffix(suffix)
        whole = compress(good_lines(topics) * 50)
        path.write_bytes(whole[: len(whole) // 2])
        return path

    return bad


def corrupt_gzip(path: Path, topics: Rows) -> Path:
    path = path.with_suffix(".jsonl.gz")
    content = bytearray(gzip.compress(good_lines(topics) * 50))
    content[-6] ^= 255  # in the checksum
    path.write_bytes(content)
    return path


def not_gzip(path: Path, topics: Rows) -> Path:
    path = path.with_suffix(".jsonl.gz")
    path.write_bytes(good_lines(topics))
    return path


def fourth_line(line: bytes) -> Callable[[Path, Rows], Path]:
    def bad(path: Path, topics: Rows) -> Path:
        path.write_bytes(good_lines(topics) + line + b"\n" + good_lines(topics))
        return path

    return bad


def fifty_megabytes(path: Path, topics: Rows) -> Path:
    path.write_bytes(good_lines(topics) + b'{"text": "' + b"word " * 10_000_000 + b'"}\n')
    return path


def nul_byte(path: Path, topics: Rows) -> Path:
    path = path.with_suffix(".txt")
    path.write_bytes(b"Text and a \x00 byte. " * 50)
    return path


def all_null(path: Path, topics: Rows) -> Path:
    path.write_bytes(b'{"text": null}\n' * 30)
    return path


def without_letters(path: Path, topics: Rows) -> Path:
    path.write_bytes(b'{"text": "=== *** ---\\n... !!!"}\n' * 30)
    return path


BAD_SOURCES: dict[str, tuple[Callable[[Path, Rows], Path], list[str]]] = {
    "empty": (empty, ["source bad (bad.jsonl) is empty: 0 documents"]),
    "glob matches nothing": (matches_nothing, ["no such file", "*.nothing.jsonl"]),
    "truncated gzip": (
        truncated(".jsonl.gz", gzip.compress),
        ["bad.jsonl.gz: truncated file", "fetch the file again", "--max-bad 1 (it is 0)"],
    ),
    "truncated bz2": (
        truncated(".jsonl.bz2", bz2.compress),
        ["bad.jsonl.bz2: truncated file", "fetch the file again"],
    ),
    "corrupt gzip": (corrupt_gzip, ["bad.jsonl.gz: broken compression", "incorrect data check"]),
    "not gzip": (not_gzip, ["bad.jsonl.gz: broken compression", "incorrect header"]),
    "not JSON": (fourth_line(b"{'text': 1}"), ["bad.jsonl@", "not JSON", "expected one JSON object a line", "--max-bad 1"]),
    "not an object": (fourth_line(b'["text"]'), ["bad.jsonl@", "a JSON list, expected an object"]),
    "missing column": (fourth_line(b'{"title": "t", "body": "x"}'), ["no text column", "body, title"]),
    "empty column": (all_null, ["all 30 documents were dropped (30 empty text)"]),
    "without a letter": (without_letters, ["all 30 documents were dropped (30 too short)"]),
    "text is a number": (fourth_line(b'{"text": 5}'), ["'text' is of type int, expected a string"]),
    "invalid UTF-8": (fourth_line(b'{"text": "caf\xe9"}'), ["invalid UTF-8: byte 0xe9"]),
    "NUL byte": (nul_byte, ["bad.txt", "NUL byte"]),
    "50 MB document": (fifty_megabytes, ["bad.jsonl@", "too long: 50.0 MB", "expected at most 20 MB"]),
}


@pytest.mark.parametrize("kind", BAD_SOURCES)
def test_a_bad_source(kind: str, topics: Rows, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make, parts = BAD_SOURCES[kind]
    source = make(tmp_path / "bad.jsonl", topics)
    before = set(tmp_path.iterdir())
    assert_refused(main(["build", "--source", str(source), "--out", str(tmp_path / "out")]), capfd.readouterr().err, *parts)
    assert set(tmp_path.iterdir()) == before


def test_a_bad_source_in_a_real_process(topics: Rows, tmp_path: Path) -> None:
    source = fourth_line(b"nonsense")(tmp_path / "bad.jsonl", topics)
    done = run_cli("preprocessing", "build", "--source", source, "--out", tmp_path / "out")
    assert_refused(done.returncode, done.stderr, "bad.jsonl@", "not JSON")
    assert list(tmp_path.iterdir()) == [source]
