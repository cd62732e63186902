"""The command line on bad days: exit code 2, one line that helps, nothing left behind. Real processes, real files."""

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
from markupsafe import escape

from preprocessing.__main__ import main
from preprocessing.corpus.reader import Corpus
from preprocessing.sources.blocks import COMPRESSED
from tests.helpers.running import ROOT, assert_refused, long, run_cli, start_cli

Rows = list[dict[str, Any]]


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


@pytest.mark.parametrize(("size_kb", "phase"), [(100, "the tokenizer"), (290, "a slice"), (400, "the corpus")])
def test_a_full_disk(
    small_disk: Callable[[int], Path], articles: Path, size_kb: int, phase: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing at OUT, nothing half-written in the work folder, and with more room the same command goes on."""
    disk = small_disk(size_kb)
    command = ["build", "--source", str(articles), "--vocab-size", "300", "--out", str(disk / "out"), "--workers", "1"]
    code = main(command)
    assert_refused(code, capfd.readouterr().err, f"{disk}: disk full: ", "what is finished stays", "free some space")
    assert [path.name for path in disk.iterdir()] == ["out.work"]
    assert not [path for path in disk.rglob("*") if ".writing-" in path.name]
    subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
    assert main(command) == 0
    assert [path.name for path in disk.iterdir()] == ["out"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle(number: signal.Signals, library: Path, tmp_path: Path) -> None:
    """The signal comes while the tokenizer trains: seconds of C++ that know nothing of signals."""
    process = start_cli("preprocessing", "build", "--source", library, "--out", tmp_path / "out")
    wait_for_line(process, "training the tokenizer")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "python -m preprocessing: stopped\n"
    assert "encoding" not in out
    assert list(tmp_path.iterdir()) == []


def wait_for_line(process: "subprocess.Popen[str]", start: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(start):
            return
    raise AssertionError(f"the process ended without a line {start!r}")


@pytest.mark.parametrize("number", [signal.SIGTERM, *long(signal.SIGINT)])
def test_stopped_among_the_slices_goes_on(number: signal.Signals, library: Path, tmp_path: Path) -> None:
    """Workers and all: the pipe they share is closed by the last of them."""
    settings = ("--source", library, "--vocab-size", "300", "--slice-mb", "0.1", "--workers", "2", "--out", tmp_path / "out")
    process = start_cli("preprocessing", "build", *settings)
    wait_for_line(process, "encoding: ")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "python -m preprocessing: stopped\n")
    assert [path.name for path in tmp_path.iterdir()] == ["out.work"]
    done = run_cli("preprocessing", "build", *settings)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_build_and_inspect_say_the_same(articles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    built = run_cli("preprocessing", "build", "--source", articles, "--vocab-size", "300", "--out", out, "--json")
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


@pytest.mark.parametrize(
    "arguments", [["--help"], *([verb, "--help"] for verb in ["build", "tokenizer", "shard", "finalize", "audit", "inspect"])]
)
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
        (["build", "--source", "builtin", "--out", "x", "--epochs", "wiki"], "expected NAME=NUMBER"),
        (["build", "--source", "builtin", "--out", "x", "--expect", "wiki:pages=4"], "expected NAME:documents=N"),
        (["build", "--source", "builtin", "--out", "x", "--expect", "wiki:words=4"], "--expect wiki: no such source"),
        (["build", "--source", "builtin", "--out", "x", "--workers", "0"], "expected 1 or more processes"),
        (["shard", "--task", "4/4", "--out", "x"], "expected I/N with 0 <= I < N"),
        (["audit", "x"], "no such directory"),
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


def test_the_audit_of_a_built_corpus(corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    command = ["audit", str(corpus.directory), "--html", str(page), "--positions", "20000"]
    assert main(command) == 0, capsys.readouterr().out
    assert f"page: {page}" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["checks"]) == 31
    assert all(check["passed"] for check in found["checks"])
    assert all(escape(check["name"]) in page.read_text() for check in found["checks"])


def test_the_audit_of_a_damaged_corpus_exits_1(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(copied)
    assert main(["audit", str(copied), "--positions", "20000"]) == 1
    assert "train-00000.arrow" in capsys.readouterr().out
    assert (copied.parent / "copy.audit.html").is_file()


def test_preprocessing_needs_neither_torch_nor_deepspeed() -> None:
    program = "import sys, preprocessing.__main__; sys.exit(bool({'torch', 'deepspeed', 'pipeline'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("verb", ["build", "tokenizer"])
def test_the_help_names_every_form_of_a_source(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    text = capsys.readouterr().out
    for form in (
        "sentences:PATH",
        "PATH#COLUMN",
        "LABEL=PATH",
        "hf:ID",
        "wikipedia",
        "books",
        "builtin",
        "wiki_00",
        *COMPRESSED,
    ):
        assert form in text, form
