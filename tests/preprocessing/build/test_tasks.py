"""Tasks: any number of them, in any order, at once, twice, on changed input; the corpus is always the same."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preprocessing.build.build import finalize, plan_and_train, run_task
from preprocessing.build.plan import Gates, work_folder
from preprocessing.build.settings import Settings
from preprocessing.corpus.reader import open_corpus
from preprocessing.sources.parse import parse_sources
from tests.helpers.running import long, run_cli
from tests.helpers.small_corpora import VOCAB_SIZE, build_small, content, write_rows

Rows = list[dict[str, Any]]
SLICE_MB = 0.01
SETTINGS = Settings(vocab_size=VOCAB_SIZE, heldout_fraction=0.1, slice_mb=SLICE_MB)


def quiet(line: str) -> None:
    pass


def plan(source: Path | str, out: Path, gates: Gates | None = None, **settings: Any) -> None:
    wanted = Settings(**{**vars(SETTINGS), **settings})
    plan_and_train(parse_sources([str(source)]), out, wanted, gates or Gates(), workers=1, say=quiet)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, articles: Path) -> dict[str, bytes]:
    """The corpus of one process that was left alone."""
    corpus = build_small(tmp_path_factory.mktemp("undisturbed") / "out", str(articles), slice_mb=SLICE_MB)
    assert len(corpus.manifest.shards) > 6
    return content(corpus.directory)


@pytest.mark.parametrize("workers", [2, *long(4)])
def test_the_number_of_workers_is_without_effect(
    undisturbed: dict[str, bytes], articles: Path, tmp_path: Path, workers: int
) -> None:
    corpus = build_small(tmp_path / "out", str(articles), slice_mb=SLICE_MB, workers=workers)
    assert content(corpus.directory) == undisturbed


@pytest.mark.parametrize("tasks", [1, 3, 100])
def test_the_number_and_order_of_tasks_is_without_effect(
    undisturbed: dict[str, bytes], articles: Path, tmp_path: Path, tasks: int
) -> None:
    out = tmp_path / "out"
    plan(articles, out)
    for task in reversed(range(tasks)):
        run_task(out, task, tasks, workers=1, say=quiet)
    finalize(out, workers=1, say=quiet)
    assert content(out) == undisturbed


def test_every_step_by_the_command_line(undisturbed: dict[str, bytes], articles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = ["--vocab-size", str(VOCAB_SIZE), "--heldout-fraction", "0.1", "--slice-mb", str(SLICE_MB)]
    done = run_cli("preprocessing", "tokenizer", "--source", articles, *settings, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "slices; next: python -m preprocessing shard" in done.stdout
    with ThreadPoolExecutor(3) as pool:  # task 0 twice, at the same time
        tasks = list(
            pool.map(lambda task: run_cli("preprocessing", "shard", "--task", task, "--out", out), ("0/2", "0/2", "1/2"))
        )
    assert [task.returncode for task in tasks] == [0, 0, 0], [task.stderr for task in tasks]
    done = run_cli("preprocessing", "finalize", "--out", out)
    assert done.returncode == 0, done.stderr
    assert content(out) == undisturbed


def test_a_rerun_does_only_what_is_missing(undisturbed: dict[str, bytes], articles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan(articles, out)
    run_task(out, 0, 2, workers=1, say=quiet)
    slices = work_folder(out) / "slices"
    before = {path: path.stat().st_mtime_ns for path in slices.iterdir()}
    assert before
    said: list[str] = []
    run_task(out, workers=1, say=said.append)
    assert "slices, " in said[0]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    (slices / "00003.json").unlink()  # a marker lost: the slice is made again
    (slices / "00004.texts.npy").write_bytes(b"")  # a file cut off
    run_task(out, workers=1, say=said.append)
    finalize(out, workers=1, say=quiet)
    assert content(out) == undisturbed


def test_finalize_names_the_slices_that_are_missing(articles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan(articles, out)
    run_task(out, 1, 2, workers=1, say=quiet)
    with pytest.raises(ValueError, match=r"slices are not done \(0, 1, 2, .*; run `python -m preprocessing shard`"):
        finalize(out, workers=1, say=quiet)
    assert not out.exists()


def test_steps_out_of_order_say_which_is_first(tmp_path: Path) -> None:
    for step in (run_task, finalize):
        with pytest.raises(FileNotFoundError, match=r"plan\.json: no such file; begin with `python -m preprocessing tok"):
            step(tmp_path / "out", workers=1, say=quiet)


def test_other_settings_in_the_same_folder_are_refused(articles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan(articles, out)
    before = content(work_folder(out) / "slices"), (work_folder(out) / "plan.json").read_bytes()
    with pytest.raises(ValueError, match=r"made with min_words 20, now it is 5; choose another --out"):
        plan(articles, out, min_words=5)
    assert (content(work_folder(out) / "slices"), (work_folder(out) / "plan.json").read_bytes()) == before


def test_slices_of_another_plan_are_refused(articles: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    plan(articles, one)
    plan(articles, two, min_words=5)
    run_task(one, workers=1, say=quiet)
    shutil.copytree(work_folder(one) / "slices", work_folder(two) / "slices", dirs_exist_ok=True)
    for step in (run_task, finalize):
        with pytest.raises(ValueError, match=r"00000\.json: made by a plan with other settings or sources"):
            step(two, workers=1, say=quiet)


def test_gates_may_be_opened_while_the_work_goes_on(topics: Rows, tmp_path: Path) -> None:
    path, out = write_rows(tmp_path / "a.jsonl", topics), tmp_path / "out"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:30], b"{broken\n", *lines[30:]]))
    with pytest.raises(ValueError, match=r"a\.jsonl@\d+: not JSON.*--max-bad 1 \(it is 0\)"):
        plan(path, out)
    plan(path, out, Gates(max_bad=1))
    plan(path, out)  # closed again: the survey is not made again, the slices see it
    with pytest.raises(ValueError, match="--max-bad 1"):
        run_task(out, workers=1, say=quiet)
    plan(path, out, Gates(max_bad=1))
    run_task(out, workers=1, say=quiet)
    (source,) = finalize(out, workers=1, say=quiet).sources
    assert source.skipped == {"not JSON": 1}
    assert len(source.skipped_examples) == 1
    assert re.match(r"a\.jsonl@\d+: not JSON", source.skipped_examples[0])
    assert source.documents_read == source.documents_kept == 40


def test_the_advice_about_bad_records_is_true_at_once(topics: Rows, tmp_path: Path) -> None:
    path, out = write_rows(tmp_path / "a.jsonl", topics), tmp_path / "out"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(b"{broken\n" + line if i % 4 == 0 else line for i, line in enumerate(lines)))
    with pytest.raises(ValueError, match=r"a\.jsonl@0: not JSON.* \(and 9 more\); .*--max-bad 10 \(it is 2\)"):
        plan(path, out, Gates(max_bad=2))
    plan(path, out, Gates(max_bad=10))
    run_task(out, workers=1, say=quiet)
    assert finalize(out, workers=1, say=quiet).sources[0].skipped == {"not JSON": 10}


def test_bad_records_are_counted_over_all_slices(topics: Rows, tmp_path: Path) -> None:
    path, out = write_rows(tmp_path / "a.jsonl", topics), tmp_path / "out"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([b"{broken\n", *lines, b"{broken\n"]))
    with pytest.raises(ValueError, match=r"--max-bad 2 \(it is 1\)"):  # the survey has seen both
        plan(path, out, Gates(max_bad=1))
    plan(path, out, Gates(max_bad=2))
    plan(path, out, Gates(max_bad=1))  # the survey is not made again
    run_task(out, workers=1, say=quiet)  # one in the first slice, one in the last
    with pytest.raises(ValueError, match="--max-bad 2"):
        finalize(out, workers=1, say=quiet)


@pytest.mark.parametrize(
    ("least", "part"), [({"documents": 41}, "40 documents, expected at least 41"), ({"words": 10**6}, "words")]
)
def test_a_source_that_yields_less_than_expected(articles: Path, tmp_path: Path, least: dict[str, int], part: str) -> None:
    with pytest.raises(ValueError, match=f"source articles: .*{part}.*is the source whole"):
        build_small(tmp_path / "out", str(articles), gates=Gates(least={"articles": least}))
    assert not (tmp_path / "out").exists()
    enough = {"documents": 40, "words": 1000}
    assert build_small(tmp_path / "out", str(articles), gates=Gates(least={"articles": enough})).vocab_size == VOCAB_SIZE


def test_a_source_that_yields_less_than_it_declares(articles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (source,) = parse_sources([str(articles)])
    plan_and_train([replace(source, declared_rows=41)], out, SETTINGS, Gates(), workers=1, say=quiet)
    run_task(out, workers=1, say=quiet)
    with pytest.raises(ValueError, match="source articles: 40 rows, expected at least 41"):
        finalize(out, workers=1, say=quiet)


@pytest.mark.parametrize("change", ["shrinks", "grows", "changes", "vanishes"])
def test_a_source_that_changes_between_the_steps(change: str, topics: Rows, tmp_path: Path) -> None:
    path, out = write_rows(tmp_path / "a.jsonl", topics), tmp_path / "out"
    plan(path, out)
    run_task(out, 0, 2, workers=1, say=quiet)
    whole = path.read_bytes()
    if change == "vanishes":
        path.unlink()
    else:
        path.write_bytes({"shrinks": whole[:-200], "grows": whole + whole[:200], "changes": b" " + whole[:-1]}[change])
    with pytest.raises((ValueError, OSError), match=r"a\.jsonl"):
        run_task(out, 1, 2, workers=1, say=quiet)
    assert not out.exists()


def test_two_finalizes_at_once(undisturbed: dict[str, bytes], articles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan(articles, out)
    run_task(out, workers=1, say=quiet)
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: run_cli("preprocessing", "finalize", "--out", out), range(3)))
    assert [one.returncode for one in done] == [0, 0, 0], [one.stderr for one in done]  # the slower ones find it built
    assert content(out) == undisturbed
    assert open_corpus(out).vocab_size == VOCAB_SIZE
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("near", [None, 0.8])
def test_slices_without_a_document(topics: Rows, tmp_path: Path, near: float | None) -> None:
    """All records of a small .gz begin in its first slice; of the second source everything is a duplicate but one."""
    one = write_rows(tmp_path / "a.jsonl.gz", topics)
    two = write_rows(tmp_path / "b.jsonl", [*topics, {"text": "Nobody else says this in so many different words. " * 5}])
    corpus = build_small(tmp_path / "out", str(one), str(two), slice_mb=0.005, near_duplicates=near)
    assert [source.documents_kept for source in corpus.manifest.sources] == [40, 1]
    assert {shard.source for shard in corpus.manifest.shards if shard.documents} == {"a", "b"}
