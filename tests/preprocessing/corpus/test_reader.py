"""The on-disk format: what is written is read, without a copy, and damage is found."""

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.corpus.reader import FORMAT, SEP_ID, Corpus, Shard, copy_of, open_corpus, token_dtype
from preprocessing.corpus.writer import Document, ShardWriter

ids = st.integers(1, 65535)
texts = st.text(max_size=8)
documents = st.builds(
    Document,
    source=st.just("a source"),
    id=texts,
    title=texts,
    sentences=st.lists(st.lists(ids, min_size=1, max_size=9), min_size=1, max_size=5),
)


def write(directory: Path, documents: list[Document], dtype: str = "uint16") -> Shard:
    with ShardWriter(directory / "train-00007.arrow", "train", dtype, tokenizer_sha256="abc") as writer:
        for document in documents:
            writer.add(document)
    info = writer.close()
    return Shard(directory / info.file, info, token_dtype=dtype, tokenizer_sha256="abc")


@settings(max_examples=40, deadline=None)
@given(st.lists(documents, min_size=1, max_size=6), st.sampled_from(["uint16", "uint32"]))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, written: list[Document], dtype: str) -> None:
    shard = write(tmp_path_factory.mktemp("shard"), written, dtype)
    assert shard.tokens.dtype == dtype
    assert len(shard) == shard.info.documents == len(written)
    read = []
    for i in range(len(shard)):
        bounds = [shard.document_start(i), *shard.sentence_ends(i)]
        assert shard.document_ends[i] == bounds[-1] + 1
        assert shard.tokens[bounds[-1]] == SEP_ID
        sentences = [shard.tokens[a:b].tolist() for a, b in pairwise(bounds)]
        read.append(Document(shard.source(i), shard.id(i), shard.title(i), sentences))
    assert read == written
    assert shard.info.tokens == len(shard.tokens) == shard.document_ends[-1]
    assert shard.info.sentences == sum(len(document.sentences) for document in written)


def mapping_of(path: Path) -> tuple[int, int]:
    """Where this process has mapped the file."""
    (line,) = (line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path)))
    start, end = line.split()[0].split("-")
    return int(start, 16), int(end, 16)


def test_the_stream_is_the_file_itself(tmp_path: Path) -> None:
    shard = write(tmp_path, [Document("s", "1", "", [[5, 6], [7]]), Document("s", "2", "", [[8]])])
    start, end = mapping_of(shard.path)
    for view in (shard.tokens, shard.document_ends):
        assert start <= view.ctypes.data < end
        assert not view.flags.owndata
        assert not view.flags.writeable
    assert shard.tokens.tolist() == [5, 6, 7, SEP_ID, 8, SEP_ID]
    assert shard.document_ends.tolist() == [4, 6]


def test_the_stream_outlives_its_shard(tmp_path: Path) -> None:
    tokens = write(tmp_path, [Document("s", "1", "", [[5, 6]])]).tokens
    assert tokens.tolist() == [5, 6, SEP_ID]


def test_a_file_describes_itself_to_any_arrow_reader(corpus: Corpus) -> None:
    info = corpus.manifest.shards[0]
    table = pa.ipc.open_file(pa.memory_map(str(corpus.directory / info.file))).read_all()
    assert table.column_names == ["source", "id", "title", "tokens", "sentence_ends", "text_digest"]
    assert table.schema.metadata == {
        b"format": FORMAT.encode(),
        b"split": info.split.encode(),
        b"vocab_size": str(corpus.vocab_size).encode(),
        b"tokenizer_sha256": corpus.manifest.tokenizer_sha256.encode(),
    }
    assert table.column("tokens").num_chunks == 1


def test_uint16_reaches_to_65536_pieces(tmp_path: Path) -> None:
    assert (token_dtype(65536), token_dtype(65537)) == ("uint16", "uint32")
    assert write(tmp_path, [Document("s", "1", "", [[65535]])]).tokens[0] == 65535


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ([], "empty"),
        ([[5], []], "empty"),
        ([[5, 100]], r"5\.\.100, expected 0\.\.99"),
        ([[-1, 5]], r"-1\.\.5"),
    ],
)
def test_the_writer_refuses_what_it_could_not_give_back(tmp_path: Path, sentences: list[list[int]], message: str) -> None:
    with ShardWriter(tmp_path / "train-00000.arrow", "train", "uint16", vocab_size=100) as writer:
        with pytest.raises(ValueError, match=message):
            writer.add(Document("s", "1", "", sentences))
        writer.add(Document("s", "1", "", [[99]]))
    assert writer.close().tokens == 2


def test_a_shard_is_of_one_source(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "train-00000.arrow", "train", "uint16")
    writer.add(Document("wiki", "1", "", [[5]]))
    with pytest.raises(ValueError, match="document '2' of books in a shard of wiki"):
        writer.add(Document("books", "2", "", [[5]]))


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    def fail_halfway() -> None:
        with ShardWriter(tmp_path / "train-00000.arrow", "train", "uint16") as writer:
            writer.add(Document("s", "1", "", [[5]]))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert list(tmp_path.iterdir()) == []


def test_an_obstacle_at_the_rename_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "train-00000.arrow").mkdir()
    writer = ShardWriter(tmp_path / "train-00000.arrow", "train", "uint16")
    writer.add(Document("s", "1", "", [[5]]))
    with pytest.raises(OSError, match=r"train-00000\.arrow"):
        writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["train-00000.arrow"]


def test_an_opened_corpus_adds_up(corpus: Corpus) -> None:
    manifest = corpus.manifest
    for split in ("train", "heldout"):
        shards = corpus.shards(split)
        stream = np.concatenate([shard.tokens for shard in shards])
        assert len(stream) == manifest.tokens(split) > 0
        assert sum(map(len, shards)) == manifest.documents(split)
        np.testing.assert_array_equal(corpus.unigram_counts(split), np.bincount(stream, minlength=corpus.vocab_size))
        assert (stream == SEP_ID).sum() == manifest.documents(split)
        assert int(stream.max()) < corpus.vocab_size
    assert corpus.unigram_counts("train").dtype == np.int64
    assert open_corpus(corpus.directory, verify="sizes").manifest == manifest


def edit_manifest(directory: Path, **changes: object) -> None:
    path = directory / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def damage(directory: Path, kind: str) -> None:
    shard = directory / "train-00000.arrow"
    if kind == "flipped byte":
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    elif kind == "truncated":
        shard.write_bytes(shard.read_bytes()[:-8])
    elif kind == "missing":
        shard.unlink()
    elif kind == "no manifest":
        (directory / "manifest.json").unlink()
    elif kind == "half a manifest":
        path = directory / "manifest.json"
        path.write_bytes(path.read_bytes()[:100])
    elif kind == "unknown format":
        edit_manifest(directory, format="sibert-corpus-9")
    elif kind == "unknown field":
        edit_manifest(directory, colour="blue")
    elif kind == "another tokenizer":
        edit_manifest(directory, tokenizer_sha256="0" * 64)
    elif kind == "other counts":
        (directory / "unigram_counts.npy").write_bytes(b"")


DAMAGES = {
    "flipped byte": r"train-00000\.arrow: sha256 .*, the manifest says .*copy the corpus again",
    "truncated": r"train-00000\.arrow: \d+ bytes, the manifest says \d+",
    "missing": r"train-00000\.arrow: missing",
    "no manifest": r"not a finished corpus: .*preprocessing build` again",
    "half a manifest": r"manifest\.json: not JSON",
    "unknown format": r"format 'sibert-corpus-9', expected 'sibert-corpus-2'",
    "unknown field": r"manifest\.json: not a manifest of sibert-corpus-2 .*colour",
    "another tokenizer": r"tokenizer\.model: manifest of another tokenizer",
    "other counts": r"unigram_counts\.npy: manifest of another corpus",
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_found_and_named(copied: Path, kind: str) -> None:
    open_corpus(copied)  # whole before
    damage(copied, kind)
    with pytest.raises((ValueError, FileNotFoundError), match=DAMAGES[kind]) as caught:
        open_corpus(copied)
    assert "\n" not in str(caught.value)


def test_sizes_alone_do_not_find_a_flipped_byte(copied: Path) -> None:
    damage(copied, "flipped byte")
    assert open_corpus(copied, verify="sizes").vocab_size


def test_a_copy_is_another_copy_and_another_name_is_not(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(copied)
    shutil.copytree(copied, tmp_path / "another")  # with the times of the files
    here, linked, copy = (copy_of(open_corpus(path, "sizes")) for path in (copied, tmp_path / "link", tmp_path / "another"))
    assert here == linked
    assert here != copy


def test_a_shard_of_another_corpus_is_refused_when_mapped(copied: Path) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    for shard in manifest["shards"]:
        shard["split"] = "train"
    edit_manifest(copied, shards=manifest["shards"])
    with pytest.raises(ValueError, match=r"heldout-00000\.arrow: split 'heldout', the manifest says 'train'"):
        open_corpus(copied).shards("train")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path / 'no'}: no such directory")):
        open_corpus(tmp_path / "no")
