"""From every kind of source to an audited corpus, with every option, by the command line."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing.__main__ import training_loader
from preprocessing.audit.audit import audit
from preprocessing.corpus.reader import Corpus, open_corpus
from tests.helpers.running import ROOT, run_cli
from tests.helpers.small_corpora import VOCAB_SIZE, build_small, content, write_rows

Rows = list[dict[str, Any]]
SAMPLE = ROOT.parent / "shared" / "data"
GERMAN = (
    "Die Stadt liegt an einem Fluss, und ihre Geschichte reicht weit in das Mittelalter zurück. Der Markt wurde von einem "
    "Bischof gegründet, der auch die Kirche bauen ließ. Heute leben dort viele Menschen, die in der Industrie arbeiten. "
)


def assert_audited(corpus: Corpus) -> None:
    found = audit(corpus.directory, training_loader, positions=20_000)
    assert found.passed, [check for check in found.checks if not check.passed]


def page(number: int, title: str, text: str) -> str:
    return f"""  <page>
    <title>{title}</title>
    <ns>0</ns>
    <id>{number}</id>
    <revision>
      <id>{number}</id>
      <text xml:space="preserve">{text}</text>
    </revision>
  </page>
"""


def make_sources(folder: Path, topics: Rows) -> list[str]:
    """The forty articles, eight in each kind of file."""
    (folder / "hub").mkdir()
    pq.write_table(pa.Table.from_pylist(topics[:8]), folder / "hub" / "train-00000-of-00001.parquet")
    pq.write_table(pa.table({"text": [row["text"] for row in topics[8:16]]}), folder / "plain.parquet")
    for row in topics[16:24]:
        (folder / f"{row['title'].replace('/', '-')}.txt").write_text(row["text"])
    escaped = [(n, r["title"], r["text"].replace("&", "&amp;").replace("<", "&lt;")) for n, r in enumerate(topics[24:32])]
    pages = "".join(page(*one) for one in escaped)
    (folder / "dump.xml").write_text(f"<mediawiki>\n{pages}</mediawiki>\n")
    write_rows(folder / "lines.jsonl.gz", topics[32:])
    return [
        f"hub=hf:{folder}/hub",
        f"plain={folder}/plain.parquet",
        f"texts={folder}/*.txt",
        f"dump={folder}/dump.xml",
        f"lines={folder}/lines.jsonl.gz",
    ]


def test_a_corpus_of_all_kinds(topics: Rows, tmp_path: Path) -> None:
    sources = make_sources(tmp_path, topics)
    corpora = [build_small(tmp_path / f"out{workers}", *sources, workers=workers) for workers in (1, 2)]
    assert content(corpora[0].directory) == content(corpora[1].directory)
    found = {source.name: source for source in corpora[0].manifest.sources}
    assert {name: source.documents_kept for name, source in found.items()} == dict.fromkeys(
        ["hub", "plain", "texts", "dump", "lines"], 8
    )
    assert found["hub"].origin["kind"] == "hub"
    assert found["hub"].origin["revision"].startswith("sha256:")
    assert str(tmp_path) not in (corpora[0].directory / "manifest.json").read_text()
    assert_audited(corpora[0])


def test_weights_reach_the_loader(topics: Rows, tmp_path: Path) -> None:
    one, two = write_rows(tmp_path / "one.jsonl", topics[:10]), write_rows(tmp_path / "two.jsonl", topics[10:])
    corpus = build_small(tmp_path / "out", str(one), str(two), weights={"one": 0.5, "two": 0.5})
    first, second = corpus.manifest.sources
    assert first.epochs * first.tokens["train"] == pytest.approx(second.epochs * second.tokens["train"])
    assert min(first.epochs, second.epochs) == 1
    assert_audited(corpus)


def test_near_duplicates_and_other_languages_go(topics: Rows, tmp_path: Path) -> None:
    edited = [{**row, "text": row["text"].replace("statement", "sentence", 1) + "\nOne more line."} for row in topics[:10]]
    german = [{"title": f"Stadt {n}", "text": f"{GERMAN}Die Stadt hat {n} Tore. " + GERMAN * n} for n in range(1, 4)]
    path = write_rows(tmp_path / "a.jsonl", [*topics, *edited, *german])
    command = ["--source", path, "--vocab-size", VOCAB_SIZE, "--slice-mb", "0.03", "--out", tmp_path / "out", "--json"]
    done = run_cli("preprocessing", "build", *map(str, command), "--near-duplicates", "0.7", "--language", "en")
    assert done.returncode == 0, done.stderr
    (source,) = json.loads(done.stdout)["sources"].values()
    assert source["documents_dropped"]["not in language en"] == 3
    assert source["documents_dropped"]["near duplicate"] >= 9
    assert source["documents_kept"] + sum(source["documents_dropped"].values()) == 53
    corpus = open_corpus(tmp_path / "out")
    titles = [shard.title(i) for split in ("train", "heldout") for shard in corpus.shards(split) for i in range(len(shard))]
    assert set(titles) == {row["title"] for row in topics}  # the earlier ones stayed
    assert_audited(corpus)


@pytest.mark.long
def test_the_real_samples(tmp_path: Path) -> None:
    """Wikipedia, novels and a MediaWiki dump by one command; minutes."""
    if not SAMPLE.is_dir():
        pytest.skip(f"no sample of real data at {os.path.relpath(SAMPLE, ROOT)}")
    sources = ["wiki/wikipedia_en_sample.jsonl.gz", "books/books_pd_sample.jsonl.gz"]
    arguments = [f"--source={name.split('/')[0]}={SAMPLE / name}" for name in sources]
    dump = SAMPLE / "wiki_xml" / "enwiki-pages-articles-sample.xml.bz2"
    expected = ["--expect=wiki:documents=15000", "--expect=books:words=8000000", "--expect=dump:documents=100"]
    done = run_cli(
        "preprocessing", "build", *arguments, f"--source=dump={dump}", *expected, "--out", str(tmp_path / "out"), "--json"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["sources"]["dump"]["documents_dropped"]["redirect"] == 99
    assert found["sources"]["books"]["documents_kept"] == 60
    assert_audited(open_corpus(tmp_path / "out"))
