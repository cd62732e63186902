"""What clusters and users do to a build: few open files, two builds in one folder, damaged work, closed pipes, odd names."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing.build.build import finalize, plan_and_train, run_task
from preprocessing.build.finalize import _link
from preprocessing.build.plan import PLAN_FILE, Gates, read_plan, work_folder, write_plan
from preprocessing.build.settings import Settings
from preprocessing.sources.parse import parse_sources
from tests.helpers.running import ROOT, run_cli, start_cli
from tests.helpers.small_corpora import VOCAB_SIZE, build_small, content, write_rows

Rows = list[dict[str, Any]]
SETTINGS = Settings(vocab_size=VOCAB_SIZE, heldout_fraction=0.1, slice_mb=0.01)


def quiet(line: str) -> None:
    pass


def make_slices(source: Path | str, out: Path, gates: Gates | None = None) -> Path:
    """A build up to `finalize`; returns the slices' folder."""
    plan_and_train(parse_sources([str(source)]), out, SETTINGS, gates or Gates(), workers=1, say=quiet)
    run_task(out, workers=1, say=quiet)
    return work_folder(out) / "slices"


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL])
def test_a_file_system_without_links(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int) -> None:
    """Older kernels answer ENOSYS for a FUSE mount that has none: a plan is written, and a shard copied, all the same."""

    def refused(old: Path, new: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refused)
    (tmp_path / "shard").write_bytes(b"tokens")
    _link(tmp_path / "shard", tmp_path / "there")
    assert (tmp_path / "there").read_bytes() == b"tokens"
    plan: Any = SimpleNamespace(as_json=lambda: {"a": 1})
    assert write_plan(tmp_path, plan, first=True)
    assert json.loads((tmp_path / PLAN_FILE).read_bytes()) == {"a": 1}


def test_finalize_needs_few_open_files(articles: Path, tmp_path: Path) -> None:
    plan_and_train(
        parse_sources([str(articles)]),
        tmp_path / "out",
        Settings(vocab_size=VOCAB_SIZE, heldout_fraction=0.1, slice_mb=0.0008),
        Gates(),
        say=quiet,
    )
    run_task(tmp_path / "out", workers=2, say=quiet)
    assert len(read_plan(work_folder(tmp_path / "out")).slices) > 80
    command = f"ulimit -n 64; exec {sys.executable} -m preprocessing finalize --workers 1 --out {tmp_path}/out"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_first_of_two_plans_in_one_folder_stands(library: Path, tmp_path: Path) -> None:
    """The first one is stopped while it trains; the second, with another seed, is quicker."""
    out = tmp_path / "out"
    settings = ("tokenizer", "--source", library, "--vocab-size", "300", "--out", out)
    slow = start_cli("preprocessing", *settings, "--seed", "0")
    assert slow.stdout is not None
    for line in slow.stdout:
        if line.startswith("training the tokenizer"):
            break
    slow.send_signal(signal.SIGSTOP)
    quick = run_cli("preprocessing", *settings, "--seed", "1")
    assert quick.returncode == 0, quick.stderr
    before = content_of_plan(out)
    slow.send_signal(signal.SIGCONT)
    _, err = slow.communicate(timeout=100)
    assert slow.returncode == 2
    assert "made with seed 1, now it is 0" in err
    assert content_of_plan(out) == before


def content_of_plan(out: Path) -> bytes:
    return (work_folder(out) / "plan.json").read_bytes()


@pytest.mark.parametrize("name", ["00001.train.arrow", "00001.texts.npy", "00001.documents.npy"])
def test_a_flipped_byte_in_the_work_folder_is_found(name: str, articles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    path = make_slices(articles, out) / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(
        ValueError, match=rf"{name}: damaged since it was made .*; remove it, and `shard` makes its slice again"
    ):
        finalize(out, workers=1, say=quiet)
    assert not out.exists()
    path.unlink()
    run_task(out, workers=1, say=quiet)
    assert path.read_bytes() == whole
    finalize(out, workers=1, say=quiet)


@pytest.mark.parametrize("marker", [b"", b"{}", b"[1]", b'{"plan": 1'])
def test_a_damaged_marker_is_a_slice_to_be_made(marker: bytes, articles: Path, tmp_path: Path) -> None:
    path = make_slices(articles, tmp_path / "out") / "00001.json"
    whole = path.read_bytes()
    path.write_bytes(marker)
    run_task(tmp_path / "out", workers=1, say=quiet)
    assert path.read_bytes() == whole


def test_a_lost_slices_folder_is_made_again(articles: Path, tmp_path: Path) -> None:
    slices = make_slices(articles, tmp_path / "out")
    before = content(slices)
    shutil.rmtree(slices)
    run_task(tmp_path / "out", workers=1, say=quiet)
    assert content(slices) == before


def test_steps_that_come_again_after_the_end_are_no_error(articles: Path, tmp_path: Path) -> None:
    """A requeued job, a second submission; also beside what a killed removal left."""
    out = build_small(tmp_path / "out", str(articles)).directory
    left = tmp_path / "out.work.removing-host-1"
    left.mkdir()
    (left / "plan.json").write_text("half removed")
    said: list[str] = []
    run_task(out, workers=1, say=said.append)
    finalize(out, workers=1, say=said.append)
    assert said == [f"{out}: already built"] * 2
    build_small(out, str(articles))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_gates_hold_for_a_corpus_that_stands(articles: Path, tmp_path: Path) -> None:
    build_small(tmp_path / "out", str(articles))
    with pytest.raises(ValueError, match="source articles: 40 documents, expected at least 41"):
        build_small(tmp_path / "out", str(articles), gates=Gates(least={"articles": {"documents": 41}}))
    with pytest.raises(ValueError, match="--expect nobody: no such source"):
        build_small(tmp_path / "out", str(articles), gates=Gates(least={"nobody": {"documents": 1}}))


def test_a_closed_pipe_does_not_stop_a_build(articles: Path, tmp_path: Path) -> None:
    command = f"{sys.executable} -m preprocessing build --source {articles} --vocab-size 300 --out {tmp_path}/out | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "surveying\n", "")
    assert (tmp_path / "out" / "manifest.json").is_file()


def to_symlink(out: Path) -> None:
    (out.parent / "elsewhere").mkdir()
    out.symlink_to(out.parent / "elsewhere")


def to_file(out: Path) -> None:
    out.write_text("the only copy")


@pytest.mark.parametrize(("make", "message"), [(to_symlink, "a link or a mount point"), (to_file, "not a corpus to keep")])
def test_a_place_that_cannot_be_is_refused_before_the_work(
    make: Callable[[Path], None], message: str, articles: Path, tmp_path: Path
) -> None:
    make(tmp_path / "out")
    with pytest.raises(ValueError, match=message):
        build_small(tmp_path / "out", str(articles))
    assert not work_folder(tmp_path / "out").exists()


def test_a_users_folder_in_the_work_folder_is_not_removed(articles: Path, tmp_path: Path) -> None:
    notes = tmp_path / "out.work" / "corpus-notes"
    notes.mkdir(parents=True)
    with pytest.raises(ValueError, match="corpus-notes: not a build's file"):
        build_small(tmp_path / "out", str(articles))
    assert notes.is_dir()


def test_names_and_records_that_utf_8_cannot_hold(topics: Rows, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jsonl"))
    odd.write_text("".join(json.dumps(row) + "\n" for row in [*topics[:20], {"\ud800": 1}]))
    for number, row in enumerate(topics[20:]):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xe9%d.txt" % number)).write_text(row["text"])
    corpus = build_small(tmp_path / "out", f"rows={odd}", f"texts={tmp_path}/*.txt", gates=Gates(max_bad=1))
    assert [source.documents_kept for source in corpus.manifest.sources] == [20, 20]
    assert corpus.manifest.sources[0].skipped == {"no text column": 1}


def test_a_link_to_nothing_in_a_glob_is_an_error(topics: Rows, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", topics)
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "missing.jsonl")
    with pytest.raises(FileNotFoundError, match=r"b\.jsonl is no file \(a link to nothing\?\)"):
        parse_sources([f"x={tmp_path}/*.jsonl"])


def test_a_local_set_that_changes_between_the_steps(topics: Rows, tmp_path: Path) -> None:
    folder, out = tmp_path / "set", tmp_path / "out"
    folder.mkdir()
    for number, rows in enumerate((topics[:20], topics[20:])):
        pq.write_table(pa.Table.from_pylist(rows), folder / f"part{number}.parquet")
    plan_and_train(parse_sources([f"hf:{folder}"]), out, SETTINGS, Gates(), workers=1, say=quiet)
    old = (folder / "part0.parquet").stat()
    changed = [{**row, "text": row["text"][::-1]} for row in topics[:20]]
    pq.write_table(pa.Table.from_pylist(changed), folder / "part0.parquet")
    os.utime(folder / "part0.parquet", ns=(old.st_atime_ns, old.st_mtime_ns - 10**9))  # older than the newest
    with pytest.raises(ValueError, match=r"expected sha256:.* as planned; start again"):
        run_task(out, workers=1, say=quiet)
