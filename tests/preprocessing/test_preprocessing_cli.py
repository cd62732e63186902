"""The command line on bad days: exit code 2, one line that helps, nothing left behind. Real processes, real files."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_corpora import ROOT, run_cli, start_cli

from preprocessing.__main__ import main
from preprocessing.shards import Corpus, open_corpus

Rows = list[dict[str, Any]]


def good_lines(topics: Rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in topics[:3]).encode()


def empty(path: Path, topics: Rows) -> Path:
    path.write_bytes(b"\n\n")
    return path


def matches_nothing(path: Path, topics: Rows) -> Path:
    return path.with_name("*.nothing.jsonl")


def truncated_gzip(path: Path, topics: Rows) -> Path:
    path = path.with_suffix(".jsonl.gz")
    whole = gzip.compress(good_lines(topics) * 50)
    path.write_bytes(whole[: len(whole) // 2])
    return path


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


BAD_SOURCES: dict[str, tuple[Callable[[Path, Rows], Path], list[str]]] = {
    "empty": (empty, ["source bad (bad.jsonl) is empty: 0 documents"]),
    "glob matches nothing": (matches_nothing, ["no file matches", "*.nothing.jsonl"]),
    "truncated gzip": (truncated_gzip, ["bad.jsonl.gz:", "broken gzip file", "bytes are here", "fetch it again"]),
    "corrupt gzip": (corrupt_gzip, ["bad.jsonl.gz:151: broken gzip file (CRC check failed"]),
    "not gzip": (not_gzip, ["bad.jsonl.gz:1: broken gzip file (Not a gzipped file"]),
    "not JSON": (fourth_line(b"{'text': 1}"), ["bad.jsonl:4: not JSON", "expected one JSON object a line"]),
    "not an object": (fourth_line(b'["text"]'), ["bad.jsonl:4: a JSON list, expected an object"]),
    "missing column": (fourth_line(b'{"title": "t", "body": "x"}'), ["bad.jsonl:4: no 'text' column", "body, title"]),
    "text is a number": (fourth_line(b'{"text": 5}'), ["bad.jsonl:4: 'text' is of type int, expected a string"]),
    "invalid UTF-8": (fourth_line(b'{"text": "caf\xe9"}'), ["bad.jsonl:4: invalid UTF-8 (byte 0xe9"]),
    "50 MB document": (
        fifty_megabytes,
        ["bad.jsonl:4: a document of 50.0 MB, expected at most 20 MB", "--max-document-mb"],
    ),
}


def assert_refused(code: int, err: str, *parts: str) -> None:
    assert code == 2, err
    assert err.count("\n") == 1, err
    assert err.startswith("python -m preprocessing")
    for part in parts:
        assert part in err


@pytest.mark.parametrize("kind", BAD_SOURCES)
def test_a_bad_source(kind: str, topics: Rows, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make, parts = BAD_SOURCES[kind]
    source = make(tmp_path / "bad.jsonl", topics)
    before = set(tmp_path.iterdir())
    assert_refused(main(["build", "--source", str(source), "--out", str(tmp_path / "out")]), capfd.readouterr().err, *parts)
    assert set(tmp_path.iterdir()) == before


def test_a_bad_source_in_a_real_process(topics: Rows, tmp_path: Path) -> None:
    source = fourth_line(b"nonsense")(tmp_path / "bad.jsonl", topics)
    done = run_cli("build", "--source", source, "--out", tmp_path / "out")
    assert_refused(done.returncode, done.stderr, "bad.jsonl:4: not JSON")
    assert list(tmp_path.iterdir()) == [source]


def flip(directory: Path) -> None:
    path = directory / "train-00000.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def forge(directory: Path) -> None:
    path = directory / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_sha256": "0" * 64}))


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (flip, "train-00000.arrow: sha256"),
        (forge, "tokenizer.model: manifest of another tokenizer"),
        (lambda directory: (directory / "manifest.json").unlink(), "not a finished corpus"),
        (shutil.rmtree, "no such directory"),
    ],
)
def test_inspect_refuses_damage(
    copied: Path, damage: Callable[[Path], None], part: str, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(copied)
    code = main(["inspect", str(copied)])
    captured = capfd.readouterr()
    assert_refused(code, captured.err, part)
    assert captured.out == ""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a file system of so many kB (needs root)."""
    place = tmp_path / "disk"
    place.mkdir()

    def make(size_kb: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", str(place)]
        if shutil.which("mount") is None or (done := subprocess.run(command, capture_output=True)).returncode:
            pytest.skip("cannot mount a small tmpfs here (it needs root)")
        assert done.returncode == 0
        return place

    yield make
    if os.path.ismount(place):
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize(("size_kb", "phase"), [(100, "the tokenizer"), (270, "a shard")])
def test_a_full_disk(
    small_disk: Callable[[int], Path], articles: Path, size_kb: int, phase: str, capfd: pytest.CaptureFixture[str]
) -> None:
    disk = small_disk(size_kb)
    code = main(["build", "--source", str(articles), "--vocab-size", "300", "--out", str(disk / "out")])
    assert_refused(code, capfd.readouterr().err, f"{disk}: disk full: ", "bytes were written", "free some space")
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle(number: signal.Signals, library: Path, tmp_path: Path) -> None:
    """The signal comes while the tokenizer trains: seconds of C++ that know nothing of signals."""
    process = start_cli("build", "--source", library, "--out", tmp_path / "out")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("training the tokenizer"):
            break
    assert [path.name for path in tmp_path.iterdir()] == [f"out.building-{process.pid}"]
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "python -m preprocessing: stopped\n"
    assert "encoding" not in out
    assert list(tmp_path.iterdir()) == []


def test_killed_outright_leaves_no_corpus_and_the_next_build_works(articles: Path, tmp_path: Path) -> None:
    command = ("build", "--source", articles, "--vocab-size", "300", "--out", tmp_path / "out")
    process = start_cli(*command)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("training the tokenizer"):
            break
    process.kill()
    process.communicate()
    assert [path.name for path in tmp_path.iterdir()] == [f"out.building-{process.pid}"]
    done = run_cli(*command)
    assert done.returncode == 0, done.stderr
    assert f"out.building-{process.pid}: left by a build that was killed" in done.stdout
    assert open_corpus(tmp_path / "out").vocab_size == 300


def test_build_and_inspect_say_the_same(articles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    built = run_cli("build", "--source", articles, "--vocab-size", "300", "--out", out, "--json")
    assert (built.returncode, built.stderr) == (0, "")
    figures = json.loads(built.stdout)
    assert main(["inspect", str(out), "--json", "--sequences", "2", "--seq-len", "32"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert len(both.pop("sequences")) == 2
    assert both == figures
    assert main(["inspect", str(out), "--sequences", "1"]) == 0
    table = capsys.readouterr().out
    for name in figures.keys() - {"directory", "sources", "splits"}:
        assert f"\n{name} " in table
    for row in (*figures["sources"].values(), *figures["splits"].values()):
        for name, value in row.items():
            assert name in table
            assert isinstance(value, dict) or f"{value:,}" in table
    assert "sequence 0: " in table


def test_sequences_come_from_the_stream(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(corpus.directory), "--sequences", "3", "--seq-len", "4000", "--json"]) == 0
    sequences = json.loads(capsys.readouterr().out)["sequences"]
    assert len(set(sequences)) > 1
    assert any(" [SEP] " in text for text in sequences)
    assert main(["inspect", str(corpus.directory), "--sequences", "3", "--seq-len", "4000", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sequences"] == sequences


@pytest.mark.parametrize("arguments", [["--help"], ["build", "--help"], ["inspect", "--help"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert len(arguments) == 1 or ("example" in text and "default" in text)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["build"], "required: --source, --out"),
        (["buidl"], "invalid choice"),
        (["build", "--source", "builtin", "--out", "x", "--vocab-size", "many"], "invalid int value"),
        (["build", "--source", "builtin", "--out", "x", "--max-document-mb", "0"], "--max-document-mb 0"),
        (["inspect", "x", "--colour"], "unrecognized arguments"),
    ],
)
def test_mistyped_commands(
    arguments: list[str], part: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(arguments)
    except SystemExit as stopped:
        code = int(str(stopped.code))
    assert_refused(code, capfd.readouterr().err, part)
    assert list(tmp_path.iterdir()) == []


def test_preprocessing_needs_neither_torch_nor_deepspeed() -> None:
    program = "import sys, preprocessing.__main__; sys.exit(bool({'torch', 'deepspeed', 'pipeline'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
