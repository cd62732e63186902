"""Hub datasets, offline: local directories, the hub's cache, what was prepared before; pinned, complete, no code run."""

import dataclasses
import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing.sources.parse import parse_sources
from preprocessing.sources.records import Dropped, RawDocument, Record
from preprocessing.sources.types import Source, slices
from tests.helpers.small_corpora import read_slices

ROOT = Path(__file__).resolve().parents[3]
COMMITS = ("a" * 39 + "1", "b" * 39 + "2")
CARD = """---
configs:
- config_name: aa
  data_files: [{split: train, path: aa/train-*}]
- config_name: en
  data_files: [{split: train, path: en/train-*}, {split: test, path: en/test-*}]
dataset_info:
- config_name: en
  splits: [{name: train, num_bytes: 1, num_examples: 300}]
---
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty HF_HOME, offline (both libraries read the environment once, on import)."""
    import datasets
    import huggingface_hub

    home = tmp_path / "home"
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hub"))
    return home


def write_shards(folder: Path, *, mark: str = "text", count: int = 3, column: str = "text") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(count):
        numbers = range(100 * shard, 100 * shard + 100)
        texts = [f"{mark} {n}" if n % 10 else None for n in numbers]
        table = pa.table({"id": [str(n) for n in numbers], "n": list(numbers), column: texts})
        pq.write_table(table, folder / f"train-{shard:05}-of-{count:05}.parquet")


def write_snapshot(home: Path, commit: str, mark: str, *, card: str = CARD, ref: str = "main") -> Path:
    """What `hf download` leaves: a commit's files, and which commit a branch is."""
    dataset = home / "hub" / "datasets--org--name"
    (dataset / "refs").mkdir(parents=True, exist_ok=True)
    (dataset / "refs" / ref).write_text(commit)
    write_shards(dataset / "snapshots" / commit / "en", mark=mark)
    if card:
        (dataset / "snapshots" / commit / "README.md").write_text(card)
    return dataset / "snapshots" / commit


def read(source: Source, slice_bytes: int = 3000) -> list[Record]:
    source = Source.from_json(source.as_json())
    records, reached = read_slices(source, slice_bytes, 1000)
    assert sum(reached.values()) == len(records)
    return records


def texts(source: Source) -> list[str]:
    return [record.text for record in read(source) if isinstance(record, RawDocument)]


EXPECTED = [f"text {n}" for n in range(300) if n % 10]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_local_directory(tmp_path: Path, streaming: bool) -> None:
    write_shards(tmp_path / "place" / "data")
    (source,) = parse_sources([f"hf:{tmp_path}/place"], streaming=streaming)
    assert (source.name, len(source.units), source.files()) == ("place", 3 if streaming else 1, ())
    assert str(tmp_path) not in repr(source.origin)
    assert source.origin["id"] == "place"
    assert source.origin["revision"].startswith("sha256:")
    records = read(source)
    assert [record.text for record in records if isinstance(record, RawDocument)] == EXPECTED
    assert records[0] == Dropped("empty text")
    assert len(slices(source, 3000)) > 1
    where = "place/shard 1 of 3@1" if streaming else "place@1"
    assert records[1] == RawDocument("place", "1", "", "text 1", where)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_directory_of_json_lines_with_another_column(tmp_path: Path, streaming: bool) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.jsonl").write_text('{"body": "one"}\n{"body": "two"}\n')
    (source,) = parse_sources([f"x=hf:{tmp_path}/d#body"], streaming=streaming)
    assert texts(source) == ["one", "two"]
    with pytest.raises(ValueError, match=r"dataset .*/d: no column 'text'; columns here: body"):
        texts(parse_sources([f"hf:{tmp_path}/d"], streaming=streaming)[0])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"text": ["b"], "n": ["two"]}, r"column 'n' is int64 in a\.parquet, string in b\.parquet"),
        ({"text": ["b"], "n": [[1]], "m": [1]}, r"column 'n' is int64 in a\.parquet, list<.*> in b\.parquet"),
    ],
)
def test_files_whose_columns_clash_are_named(tmp_path: Path, other: dict[str, list[Any]], message: str) -> None:
    (tmp_path / "d").mkdir()
    pq.write_table(pa.table({"text": ["a"], "n": [1]}), tmp_path / "d" / "a.parquet")
    pq.write_table(pa.table(other), tmp_path / "d" / "b.parquet")
    with pytest.raises(ValueError, match=message) as refused:
        parse_sources([f"hf:{tmp_path}/d"])
    assert "network" not in str(refused.value)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_json_files_whose_columns_clash_are_named(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "d").mkdir()
    for name, row in (("a", b'{"text": "a", "n": 1}\n'), ("b", b'{"text": "b", "n": "two"}\n')):
        (tmp_path / "d" / f"{name}.jsonl{suffix}").write_bytes(gzip.compress(row) if suffix else row)
    with pytest.raises(ValueError, match=rf"column 'n' is int64 in a\.jsonl{suffix}, string in b\.jsonl{suffix}"):
        parse_sources([f"hf:{tmp_path}/d"])


@pytest.mark.parametrize("streaming", [False, True])
def test_a_directory_that_changed_is_noticed(tmp_path: Path, streaming: bool) -> None:
    write_shards(tmp_path / "d")
    (source,) = parse_sources([f"hf:{tmp_path}/d"], streaming=streaming)
    os.utime(tmp_path / "d" / "train-00000-of-00003.parquet")
    assert texts(source) == EXPECTED  # touched, but the same
    write_shards(tmp_path / "d", mark="other")
    with pytest.raises(ValueError, match=r"dataset .*/d: is sha256:\w+, expected sha256:\w+ as planned"):
        read(source)


@pytest.mark.parametrize(("streaming", "what"), [(False, "300 rows, expected 299"), (True, "3 data files, expected 2")])
def test_another_size_than_planned_is_noticed(tmp_path: Path, streaming: bool, what: str) -> None:
    write_shards(tmp_path / "d")
    (source,) = parse_sources([f"hf:{tmp_path}/d"], streaming=streaming)
    units = source.units[1:] if streaming else (dataclasses.replace(source.units[0], rows=299),)
    with pytest.raises(ValueError, match=f"{what} as planned"):
        texts(dataclasses.replace(source, units=units))


@pytest.mark.parametrize("streaming", [False, True])
def test_the_hubs_cache_offline(home: Path, streaming: bool) -> None:
    write_snapshot(home, COMMITS[0], "text")
    write_snapshot(home, COMMITS[1], "newer", ref="dev")
    (source,) = parse_sources(["hf:org/name:en"], streaming=streaming)
    assert source.origin == {
        "kind": "hub",
        "id": "org/name",
        "config": "en",
        "revision": COMMITS[0],
        "column": "text",
        "split": "train",
        "streaming": streaming,
    }
    assert source.declared_rows == 300
    assert texts(source) == EXPECTED
    for revision in ("dev", COMMITS[1]):
        (newer,) = parse_sources([f"hf:org/name:en@{revision}"], streaming=streaming)
        assert newer.origin["revision"] == COMMITS[1]
        assert texts(newer)[0] == "newer 1"
    assert texts(source) == EXPECTED


def test_a_snapshot_without_a_card(home: Path) -> None:
    write_snapshot(home, COMMITS[0], "text", card="")
    (source,) = parse_sources(["hf:org/name:en"])
    assert texts(source) == EXPECTED
    assert source.declared_rows == 0


def test_what_was_prepared_is_used_only_if_it_is_of_that_commit(home: Path) -> None:
    prepared = home / "datasets" / "org___name" / "en" / "0.0.0"
    write_shards(home / "d")
    import datasets

    builder = datasets.load_dataset_builder(str(home / "d"))
    builder.download_and_prepare(str(prepared / COMMITS[0]))
    info = prepared / COMMITS[0] / "dataset_info.json"
    info.write_text(info.read_text().replace('"config_name": "default"', '"config_name": "en"').replace('"d"', '"name"'))
    for arrow in (prepared / COMMITS[0]).glob("d-*"):
        arrow.rename(arrow.with_name(arrow.name.replace("d-", "name-", 1)))
    (source,) = parse_sources(["hf:org/name:en"])
    assert source.origin["revision"] == COMMITS[0]
    assert texts(source) == EXPECTED
    write_snapshot(home, COMMITS[1], "newer")
    (newer,) = parse_sources(["hf:org/name:en"])
    assert newer.origin["revision"] == COMMITS[1]
    assert texts(newer)[0] == "newer 1"
    assert texts(source) == EXPECTED
    with pytest.raises(OSError, match=r"dataset org/name: no revision 'v9' in .*; prepared is commit aaa"):
        parse_sources(["hf:org/name:en@v9"])


def test_missing_files_are_noticed(home: Path, tmp_path: Path) -> None:
    snapshot = write_snapshot(home, COMMITS[0], "text")
    (snapshot / "en" / "train-00001-of-00003.parquet").unlink()
    for streaming in (False, True):
        with pytest.raises(ValueError, match=r"1 of 00003 files are missing \(train-00001-of-00003\.parquet"):
            parse_sources(["hf:org/name:en"], streaming=streaming)
    write_shards(snapshot / "en")
    (snapshot / "README.md").write_text(CARD.replace("num_examples: 300", "num_examples: 301"))
    with pytest.raises(ValueError, match="300 rows, expected 301 as its card declares"):
        parse_sources(["hf:org/name:en"])


@pytest.mark.parametrize("streaming", [False, True])
def test_a_script_is_refused_and_not_run(home: Path, tmp_path: Path, streaming: bool) -> None:
    script = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    write_shards(tmp_path / "d")
    (tmp_path / "d" / "d.py").write_text(script)
    (write_snapshot(home, COMMITS[0], "text") / "name.py").write_text(script)
    for argument in (f"hf:{tmp_path}/d", "hf:org/name:en"):
        with pytest.raises(ValueError, match=r"is a Python script \((d|name)\.py\), and no dataset's code is run"):
            parse_sources([argument], streaming=streaming)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("hf:org/absent", r"dataset org/absent: no revision 'main' in .*HF_HUB_OFFLINE=1"),
        ("hf:org/name:en@v9", r"dataset org/name: no revision 'v9' in .*HF_HOME"),
        ("hf:org/name:aa", r"dataset org/name: no files of configuration 'aa'"),
        ("hf:org/name:en#txt", r"dataset org/name: no column 'txt'; columns here: id, n, text"),
        ("hf:org/name:en#n", r"dataset org/name: column 'n' is of type int64, expected string"),
        ("hf:/absent/directory", r"dataset /absent/directory: no such directory"),
        ("hf:./empty", r"dataset \./empty: .*\(EmptyDatasetError\)"),
        ("hf:./empty@v1", r"a local directory has no revision 'v1'"),
    ],
)
def test_what_cannot_be_had_is_one_line(
    home: Path, tmp_path: Path, argument: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_snapshot(home, COMMITS[0], "text")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError), match=message) as caught:
        parse_sources([argument])
    assert "\n" not in str(caught.value)


def test_the_real_environment_variables(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "real", COMMITS[0], "text")
    script = "from preprocessing.sources.parse import parse_sources as p; print(p(['hf:org/name:en'])[0].units[0].rows)"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "real")}
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "300\n"
