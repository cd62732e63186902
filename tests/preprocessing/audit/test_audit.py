"""`audit`: a sound corpus passes every check, and each kind of damage fails the check that is meant for it, alone.

One file, longer than others, because each damage is done to one sound corpus, which is made once.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.data import masking
from pipeline.data.batch import Batch
from pipeline.data.pretraining import PretrainingData
from preprocessing.__main__ import training_loader
from preprocessing.audit.audit import Audit, audit, table
from preprocessing.audit.check import chi_square_bounds, poisson_bounds
from preprocessing.audit.page import page
from preprocessing.audit.pairs import PairMasks
from preprocessing.base.files import file_sha256
from preprocessing.build.figures import figures as build_figures
from preprocessing.build.figures import table as build_table
from preprocessing.corpus.manifest import FORMAT, SPLITS, Manifest, ShardInfo, SourceInfo, write_manifest
from preprocessing.corpus.reader import FIRST_ORDINARY_ID, MASK_ID, SEP_ID, Corpus, open_corpus
from preprocessing.corpus.writer import Document, ShardWriter, write_batch
from preprocessing.text.clean import clean, digest
from preprocessing.text.sentences import split_sentences
from preprocessing.text.tokenizer import load, train

VOCAB_SIZE = 500
HOSTILE = "<script>alert('&')</script>"
SHARDS = (("train", "prose"), ("train", "terms"), ("heldout", "prose"))
Edit = Callable[[str, np.ndarray, np.ndarray], None]  # shard, its tokens, its sentence ends: changed in place


@dataclasses.dataclass(frozen=True)
class Text:
    """A document as a source has it, and its sentences' ids."""

    title: str
    text: str
    sentences: list[list[int]]


@dataclasses.dataclass(frozen=True)
class Material:
    """What corpora are built from: some 1300 documents, no two alike, and a tokenizer trained on them."""

    model: bytes
    texts: list[Text]

    def encode(self, path: Path, text: str) -> list[list[int]]:
        path.write_bytes(self.model)
        return sentences_of(load(path), text)


def sentences_of(tokenizer: Any, text: str) -> list[list[int]]:
    return [ids for ids in tokenizer.encode([s for p in clean(text).paragraphs for s in split_sentences(p)]) if ids]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    blocks = [block for topic in topics.values() for block in topic.split("\n\n") if len(block) > 100]
    model = train([line for block in blocks for line in clean(block).paragraphs], VOCAB_SIZE)
    path = tmp_path_factory.mktemp("model") / "tokenizer.model"
    path.write_bytes(model)
    tokenizer, texts = load(path), {}
    for block in blocks:
        if sentences := sentences_of(tokenizer, block):
            texts[tuple(token for sentence in sentences for token in sentence)] = Text(HOSTILE, block, sentences)
    assert len(texts) > 1100  # so that one document is less than the duplicates' limit
    return Material(model, list(texts.values()))


def build(
    directory: Path, material: Material, texts: Sequence[Sequence[Text]], edit: Edit | None = None, *, digests: bool = True
) -> Path:
    """A corpus of these documents, one list for each of SHARDS; `edit` may falsify a shard before anything is counted.
    digests: of the texts; older corpora have none."""
    directory.mkdir()
    tokenizer = directory / "tokenizer.model"
    tokenizer.write_bytes(material.model)
    infos, samples, counts = [], [], np.zeros((2, VOCAB_SIZE), np.int64)
    for index, ((split, source), documents) in enumerate(zip(SHARDS, texts, strict=True)):
        path = directory / f"{split}-{index:05d}.arrow"
        with ShardWriter(path, split, "uint16", vocab_size=VOCAB_SIZE, tokenizer_sha256=file_sha256(tokenizer)) as writer:
            for number, text in enumerate(documents):
                own = digest(clean(text.text).paragraphs) if digests else b""
                writer.add(Document(source, str(number), text.title, text.sentences, own))
                if number in (3, 40):
                    place = {"shard": path.name, "document": number, "source": source, "id": str(number)}
                    samples.append({**place, "title": text.title, "text": text.text})
        info, tokens = rewritten(path, writer.close(), edit)
        infos.append(info)
        counts[SPLITS.index(split)] += np.bincount(tokens[tokens < VOCAB_SIZE], minlength=VOCAB_SIZE)
    np.save(directory / "unigram_counts.npy", counts)
    (directory / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    write_manifest(directory, manifest_of(directory, infos, counts))
    return directory


def rewritten(path: Path, info: ShardInfo, edit: Edit | None) -> tuple[ShardInfo, np.ndarray]:
    batch = pa.ipc.open_file(path.read_bytes()).get_batch(0)
    columns = {name: batch.column(name) for name in ("tokens", "sentence_ends")}
    values = {name: column.values.to_numpy().copy() for name, column in columns.items()}
    if edit is None:
        return info, values["tokens"]
    edit(path.name, values["tokens"], values["sentence_ends"])
    for name, column in columns.items():
        edited = pa.ListArray.from_arrays(column.offsets, pa.array(values[name]))
        batch = batch.set_column(batch.schema.get_field_index(name), batch.schema.field(name), edited)
    return write_batch(path, batch), values["tokens"]


def manifest_of(directory: Path, infos: Sequence[ShardInfo], counts: np.ndarray) -> Manifest:
    def total(what: str, source: str) -> dict[str, int]:
        return {split: sum(getattr(i, what) for i in infos if i.source == source and i.split == split) for split in SPLITS}

    sources = []
    for name in ("prose", "terms"):
        documents = total("documents", name)
        kept = sum(documents.values())
        sources.append(SourceInfo(name, kept + 2, kept, 1000, {"too short": 2}, documents, total("tokens", name)))
    p = counts[1][FIRST_ORDINARY_ID:] / counts[1][FIRST_ORDINARY_ID:].sum()
    q = (counts[0][FIRST_ORDINARY_ID:] + 1) / (counts[0][FIRST_ORDINARY_ID:] + 1).sum()
    hashes = {name: file_sha256(directory / name) for name in ("tokenizer.model", "unigram_counts.npy", "samples.jsonl")}
    return Manifest(
        format=FORMAT,
        vocab_size=VOCAB_SIZE,
        token_dtype="uint16",
        tokenizer_sha256=hashes["tokenizer.model"],
        unigram_counts_sha256=hashes["unigram_counts.npy"],
        samples_sha256=hashes["samples.jsonl"],
        shards=tuple(infos),
        sources=tuple(sources),
        settings={},
        versions={},
        heldout_unigram_entropy_nats=-sum(x * math.log(x) for x in p if x),
        heldout_unigram_cross_entropy_nats=-sum(x * math.log(y) for x, y in zip(p, q, strict=True)),
    )


def shared_out(texts: Sequence[Text]) -> list[list[Text]]:
    return [list(texts[200:800]), list(texts[800:]), list(texts[:200])]


def look(directory: Path, **options: Any) -> Audit:
    return audit(directory, training_loader, **{"positions": 20_000, **options})


def failures(found: Audit) -> set[str]:
    return {check.name for check in found.checks if not check.passed}


@pytest.fixture
def sound(tmp_path: Path, material: Material) -> Path:
    return build(tmp_path / "corpus", material, shared_out(material.texts))


def test_a_sound_corpus_passes_every_check(sound: Path) -> None:
    lines: list[str] = []
    found = look(sound, say=lines.append)
    assert failures(found) == set(), table(found)
    assert found.passed
    assert len(found.checks) == 31
    assert found == look(sound)  # nothing is random but by the seed
    assert "masking" in lines
    assert found.figures["masking"]["predictions"] >= 20_000
    json.dumps(found.figures, allow_nan=False)
    text = table(found)
    assert all(check.name in text and check.found in text and check.expected in text for check in found.checks)
    assert text.endswith("31 checks, all passed")


@pytest.mark.parametrize("seed", [1, 2])
def test_another_seed_passes_too(sound: Path, seed: int) -> None:
    assert failures(look(sound, seed=seed, seq_len=64)) == set()


def test_figures_are_those_of_the_corpus(sound: Path, material: Material) -> None:
    figures = look(sound).figures
    lengths = sorted(sum(map(len, text.sentences)) + 1 for text in material.texts)
    found = figures["document_tokens"]
    assert (found["count"], found["lowest"], found["highest"]) == (len(lengths), lengths[0], lengths[-1])
    assert found["quantiles"]["0.5"] == lengths[math.ceil(len(lengths) / 2) - 1]
    assert sum(found["bin_counts"]) == len(lengths)
    assert figures["sentence_tokens"]["count"] == sum(len(text.sentences) for text in material.texts)
    assert sum(row["token_share"] for row in figures["sources"].values()) == pytest.approx(1)
    assert figures["splits"]["heldout"]["documents"] == 200


# Damage to the files of a finished corpus. Hashes are made anew, unless they are the point.


def edit_manifest(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = directory / "manifest.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def flip_a_byte(directory: Path) -> None:
    """In the title of a document that is no sample."""
    path = directory / "train-00001.arrow"
    content = bytearray(path.read_bytes())
    places = [match.start() for match in re.finditer(re.escape(HOSTILE.encode()), content)]
    content[places[100]] ^= 1
    path.write_bytes(content)


def lose_the_tokenizer(directory: Path) -> None:
    (directory / "tokenizer.model").unlink()


def wrong_unigram_counts(directory: Path) -> None:
    path = directory / "unigram_counts.npy"
    counts = np.load(path)
    counts[0, 77] += 1
    np.save(path, counts)
    edit_manifest(directory, lambda m: m.update(unigram_counts_sha256=file_sha256(path)))


def another_source_text(directory: Path) -> None:
    path = directory / "samples.jsonl"
    first, *rest = map(json.loads, path.read_text().splitlines())
    first["text"] = "Quite another text stands here."
    path.write_text("".join(json.dumps(sample) + "\n" for sample in (first, *rest)))
    edit_manifest(directory, lambda m: m.update(samples_sha256=file_sha256(path)))


def no_samples(directory: Path) -> None:
    path = directory / "samples.jsonl"
    path.write_bytes(b"")
    edit_manifest(directory, lambda m: m.update(samples_sha256=file_sha256(path)))


def in_manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda directory: edit_manifest(directory, change)


FILE_DAMAGES: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "a flipped byte": (flip_a_byte, {"files"}),
    "no tokenizer": (lose_the_tokenizer, {"files", "tokenizer"}),
    "a shard's documents": (in_manifest(lambda m: m["shards"][0].update(documents=7)), {"counts of every shard"}),
    "a shard's tokens": (in_manifest(lambda m: m["shards"][2].update(tokens=7)), {"counts of every shard"}),
    "a shard's source": (in_manifest(lambda m: m["shards"][1].update(source="prose")), {"shards"}),
    "a source's tokens": (in_manifest(lambda m: m["sources"][0]["tokens"].update(train=7)), {"counts of every source"}),
    "documents read": (in_manifest(lambda m: m["sources"][0].update(documents_read=7)), {"documents read"}),
    "an entropy": (in_manifest(lambda m: m.update(heldout_unigram_entropy_nats=3.0)), {"unigram entropies"}),
    "unigram counts": (wrong_unigram_counts, {"unigram counts"}),
    "another source text": (another_source_text, {"documents and their source text"}),
    "no samples": (no_samples, {"documents and their source text"}),
}


@pytest.mark.parametrize("kind", FILE_DAMAGES)
def test_damage_to_files_fails_its_check(sound: Path, kind: str) -> None:
    damage, expected = FILE_DAMAGES[kind]
    damage(sound)
    found = failures(look(sound))
    if kind == "a shard's source":  # the shard is left out of everything that follows
        assert expected <= found
    else:
        assert found == expected


def test_a_truncated_shard_is_a_failed_check_and_the_others_are_looked_at(sound: Path) -> None:
    path = sound / "train-00000.arrow"
    path.write_bytes(path.read_bytes()[:5000])
    found = look(sound)
    assert {"files", "shards", "counts of every source"} <= failures(found)
    assert {"counts of every shard", "[SEP]", "sentence ends", "masking: 80 / 10 / 10"}.isdisjoint(failures(found))
    assert "train-00000.arrow" in page(found)


def test_nothing_readable_is_still_an_audit(sound: Path) -> None:
    for path in sound.glob("*.arrow"):
        path.write_bytes(b"")
    found = look(sound)
    assert failures(found) == {"files", "shards"}
    assert "no such" not in table(found)
    assert "failed" in page(found)


# Damage to the text: the corpus says of itself what it holds.


def put(shard: str, at: int, token: int) -> Edit:
    def edit(name: str, tokens: np.ndarray, sentence_ends: np.ndarray) -> None:
        if name == shard:
            tokens[at] = token

    return edit


def late_sentence_end(name: str, tokens: np.ndarray, sentence_ends: np.ndarray) -> None:
    if name == "train-00001.arrow":
        sentence_ends[-1] += 5


def empty_sentence(name: str, tokens: np.ndarray, sentence_ends: np.ndarray) -> None:
    if name == "train-00000.arrow":
        place = int(np.nonzero(np.diff(sentence_ends) > 0)[0][-1])
        sentence_ends[place] = sentence_ends[place + 1]


def missing_sep(name: str, tokens: np.ndarray, sentence_ends: np.ndarray) -> None:
    if name == "train-00001.arrow":
        tokens[-1] = 99


EDITS: dict[str, tuple[Edit, str]] = {
    "[MASK] in the text": (put("train-00000.arrow", -9, MASK_ID), "special pieces"),
    "[PAD] in the text": (put("heldout-00002.arrow", -9, 0), "special pieces"),
    "[SEP] in the text": (put("train-00000.arrow", -9, SEP_ID), "[SEP]"),
    "no [SEP] at the end": (missing_sep, "[SEP]"),
    "an id beyond the vocabulary": (put("train-00001.arrow", -9, VOCAB_SIZE), "ids"),
    "a sentence end past its document": (late_sentence_end, "sentence ends"),
    "an empty sentence": (empty_sentence, "sentence ends"),
}


@pytest.mark.parametrize("kind", EDITS)
def test_damage_to_the_text_fails_its_check(tmp_path: Path, material: Material, kind: str) -> None:
    edit, expected = EDITS[kind]
    found = look(build(tmp_path / "corpus", material, shared_out(material.texts), edit))
    assert failures(found) == {expected}


# What degenerates without an error.


def merged(text: Text) -> Text:
    """All of its sentences as one."""
    return dataclasses.replace(text, sentences=[[token for sentence in text.sentences for token in sentence]])


def split_up(text: Text) -> Text:
    """Two tokens a sentence."""
    flat = [token for sentence in text.sentences for token in sentence]
    return dataclasses.replace(text, sentences=[flat[i : i + 2] for i in range(0, len(flat), 2)])


def endless(text: Text) -> Text:
    return dataclasses.replace(text, sentences=[*text.sentences, (text.sentences[-1] * 2000)[:2000]])


LIMITS: dict[str, tuple[Callable[[list[Text]], list[Text]], set[str]]] = {
    "one sentence a document": (lambda texts: list(map(merged, texts)), {"sentences a document", "pairs: labels"}),
    "two tokens a sentence": (lambda texts: list(map(split_up, texts)), {"tokens a sentence"}),
    "a few endless sentences": (lambda texts: [*map(endless, texts[:10]), *texts[10:]], {"tokens a sentence"}),
}


@pytest.mark.parametrize("kind", LIMITS)
def test_text_that_degenerated_is_found(tmp_path: Path, material: Material, kind: str) -> None:
    change, expected = LIMITS[kind]
    prose, terms, heldout = shared_out(material.texts)
    prose[3], prose[40] = prose[103], prose[140]  # the documents of samples.jsonl say what their sentences are
    shards = [change(prose), change(terms), change(heldout)]
    found = look(build(tmp_path / "corpus", material, shards))
    assert failures(found) - {"documents and their source text", "duplicate documents"} == expected
    figures = build_figures(open_corpus(tmp_path / "corpus"))
    assert {
        warning.split(": ")[0] if "pairs" not in warning else "pairs: labels" for warning in figures["warnings"]
    } == expected
    assert build_table(figures).splitlines()[-len(expected) :] == [f"WARNING: {warning}" for warning in figures["warnings"]]
    assert figures["not_next_share"] == pytest.approx(found.figures["pairs"]["not_next_share"], abs=0.05)


@pytest.mark.parametrize(
    ("dropped", "passed"),
    [
        ({"too short": 200}, True),
        ({"too short": 1700}, False),
        ({"duplicate": 900, "too short": 900}, True),
        ({"not in language en": 5000, "redirect": 20_000}, True),
        ({"near duplicate": 20_000}, False),
    ],
)
def test_a_reason_that_decides_what_the_corpus_is_is_found(sound: Path, dropped: dict[str, int], passed: bool) -> None:
    def drop(manifest: dict[str, Any]) -> None:
        source = manifest["sources"][1]
        source["dropped"] = dropped
        source["documents_read"] = source["documents_kept"] + sum(dropped.values())

    edit_manifest(sound, drop)
    assert failures(look(sound)) == (set() if passed else {"documents dropped"})
    warnings = build_figures(open_corpus(sound))["warnings"]
    assert [warning.split(":")[0] for warning in warnings] == ([] if passed else ["documents dropped"])


def pair_masks(lengths: Sequence[int], predictions: Sequence[int], seq_len: int = 40) -> PairMasks:
    """One batch of pairs of so many tokens, of which the first are predicted; what is no token is padding."""
    inputs_BL = np.zeros((len(lengths), seq_len), np.int64)
    P = max(predictions)
    positions_BP, labels_BP = np.tile(np.arange(1, P + 1), (len(lengths), 1)), np.full((len(lengths), P), 77)
    for row_L, length, n in zip(inputs_BL, lengths, predictions, strict=True):
        row_L[1 : length + 1] = 99
        row_L[1 : n + 1] = MASK_ID
        row_L[[0, length + 1]] = SEP_ID
    weights_BP = (np.arange(P) < np.array(predictions)[:, None]).astype(np.float32)
    found = PairMasks()
    found.add(inputs_BL, positions_BP, labels_BP, weights_BP)
    return found


def test_predictions_of_pairs_are_counted_against_their_own_tokens() -> None:
    fair = pair_masks([38, 20, 10, 2], [6, 3, 2, 1])
    assert (fair.ordinary, fair.predicted, fair.expected) == (70, 12, 12)
    assert fair.figures()["predicted_share"] == pytest.approx(12 / 70)
    padded = pair_masks([38, 20, 10, 2], [6, 6, 6, 2])  # as many as a full sequence has
    assert (padded.predicted, padded.expected, padded.over_half) == (20, 12, 2)
    assert padded.figures()["predicted_share_mean"] == pytest.approx((6 / 38 + 6 / 20 + 6 / 10 + 1) / 4)


@pytest.mark.parametrize("seq_len", [128, 512])
def test_padded_pairs_have_their_share_of_predictions(sound: Path, seq_len: int) -> None:
    """Real text, whose documents end long before a sequence is full."""
    found = look(sound, seq_len=seq_len)
    (check,) = (check for check in found.checks if check.name == "pairs: predictions")
    assert check.passed, check.found
    assert found.figures["pairs"]["predicted_share"] == pytest.approx(0.15, rel=0.05)


def test_pairs_that_no_loader_makes_are_no_fault(sound: Path) -> None:
    def without_pairs(corpus: Corpus, objective: Any, *arguments: Any) -> Any:
        if objective == "mlm+nsp":
            raise ValueError("one document")
        return training_loader(corpus, objective, *arguments)

    found = audit(sound, without_pairs, positions=5000)
    assert found.passed
    assert "no pairs: one document" in table(found)


def test_duplicates_are_found(tmp_path: Path, material: Material) -> None:
    prose, terms, heldout = shared_out(material.texts)
    found = look(build(tmp_path / "corpus", material, [prose, [*terms, *prose[50:53]], heldout]))
    assert failures(found) == {"duplicate documents"}


def test_an_older_corpus_without_digests_is_audited(tmp_path: Path, material: Material) -> None:
    prose, terms, heldout = shared_out(material.texts)
    assert look(build(tmp_path / "sound", material, [prose, terms, heldout], digests=False)).passed
    found = look(build(tmp_path / "leak", material, [prose, [*terms, heldout[100]], heldout], digests=False))
    assert failures(found) == {"held-out documents in train"}


@pytest.mark.parametrize(("other", "expected"), [("语", set()), ("語", {"held-out documents in train"})])
def test_unknown_pieces_are_told_apart_by_their_text(
    tmp_path: Path, material: Material, other: str, expected: set[str]
) -> None:
    prose, terms, heldout = shared_out(material.texts)
    texts = [f"The {character} is a character of some language." for character in ("語", other)]
    encoded = [Text(HOSTILE, text, material.encode(tmp_path / "model", text)) for text in texts]
    assert encoded[0].sentences == encoded[1].sentences
    found = look(build(tmp_path / "corpus", material, [prose, [*terms, encoded[0]], [*heldout, encoded[1]]]))
    assert failures(found) == expected


def test_one_heldout_document_in_train_is_found(tmp_path: Path, material: Material) -> None:
    prose, terms, heldout = shared_out(material.texts)
    found = look(build(tmp_path / "corpus", material, [prose, [*terms, heldout[100]], heldout]))
    assert failures(found) == {"held-out documents in train"}
    assert "1 of 200" in table(found)


def test_text_of_unknown_pieces_is_found(tmp_path: Path, material: Material) -> None:
    prose, terms, heldout = shared_out(material.texts)
    for i in range(100, 300):
        text = terms[i].text + "\n" + "語 " * 20
        terms[i] = Text(terms[i].title, text, material.encode(tmp_path / "model", text))
    found = look(build(tmp_path / "corpus", material, [prose, terms, heldout]))
    assert failures(found) == {"unknown pieces"}


# Damage to the masking.

Patch = Callable[[pytest.MonkeyPatch], None]
real_mask_tokens, real_samples = masking.mask_tokens, PretrainingData._samples


def mask_tokens_with(change: Callable[..., tuple[np.ndarray, ...]]) -> Patch:
    return lambda patch: patch.setattr(masking, "mask_tokens", change)


def masks_specials(tokens_BL: np.ndarray, *arguments: Any) -> tuple[np.ndarray, ...]:
    disguised_BL = np.where(tokens_BL == SEP_ID, 5, tokens_BL)
    disguised_BL[:, [0, -1]] = tokens_BL[:, [0, -1]]
    inputs_BL, positions_BP, _, weights_BP = real_mask_tokens(disguised_BL, *arguments)
    predicted_BL = np.zeros(tokens_BL.shape, bool)
    np.put_along_axis(predicted_BL, positions_BP, True, axis=1)
    inputs_BL[~predicted_BL] = tokens_BL[~predicted_BL]
    return inputs_BL, positions_BP, np.take_along_axis(tokens_BL, positions_BP, axis=1), weights_BP


def draws_half(tokens: np.ndarray, uniforms: np.ndarray, P: int, V: int, *rest: int) -> tuple[np.ndarray, ...]:
    return real_mask_tokens(tokens, uniforms, P, (V + FIRST_ORDINARY_ID) // 2, *rest)


def draws_even_ids(tokens: np.ndarray, *arguments: Any) -> tuple[np.ndarray, ...]:
    inputs_BL, positions_BP, labels_BP, weights_BP = real_mask_tokens(tokens, *arguments)
    shown_BP = np.take_along_axis(inputs_BL, positions_BP, axis=1)
    is_drawn_BP = (shown_BP != MASK_ID) & (shown_BP != labels_BP) & (shown_BP > FIRST_ORDINARY_ID)
    np.put_along_axis(inputs_BL, positions_BP, np.where(is_drawn_BP, shown_BP // 2 * 2, shown_BP), axis=1)
    return inputs_BL, positions_BP, labels_BP, weights_BP


def draws_specials(tokens: np.ndarray, *arguments: Any) -> tuple[np.ndarray, ...]:
    inputs_BL, positions_BP, labels_BP, weights_BP = real_mask_tokens(tokens, *arguments)
    shown_BP = np.take_along_axis(inputs_BL, positions_BP, axis=1)
    is_drawn_BP = (shown_BP != MASK_ID) & (shown_BP != labels_BP) & (shown_BP == 300)
    np.put_along_axis(inputs_BL, positions_BP, np.where(is_drawn_BP, SEP_ID, shown_BP), axis=1)
    return inputs_BL, positions_BP, labels_BP, weights_BP


def prefers_the_front(tokens: np.ndarray, uniforms: np.ndarray, *arguments: int) -> tuple[np.ndarray, ...]:
    skewed = uniforms.copy()
    skewed[:, : tokens.shape[1] // 2] *= 0.8
    return real_mask_tokens(tokens, skewed, *arguments)


def wrong_labels(tokens: np.ndarray, *arguments: Any) -> tuple[np.ndarray, ...]:
    inputs_BL, positions_BP, labels_BP, weights_BP = real_mask_tokens(tokens, *arguments)
    labels_BP[0, 0] = labels_BP[0, 0] - 1 if labels_BP[0, 0] > FIRST_ORDINARY_ID else FIRST_ORDINARY_ID + 1
    return inputs_BL, positions_BP, labels_BP, weights_BP


def touches_the_rest(tokens: np.ndarray, *arguments: Any) -> tuple[np.ndarray, ...]:
    inputs_BL, positions_BP, labels_BP, weights_BP = real_mask_tokens(tokens, *arguments)
    inputs_BL[0, -1] = 99
    return inputs_BL, positions_BP, labels_BP, weights_BP


def reads_the_first_quarter(data: PretrainingData, epoch_B: np.ndarray, sample_B: np.ndarray) -> Batch:
    quarter = data.n_samples // 4
    return real_samples(data, epoch_B * 5 + sample_B // quarter, sample_B % quarter)


MASKINGS: dict[str, tuple[Patch, set[str]]] = {
    "masks 85%": (lambda patch: patch.setattr(masking, "P_MASK", 0.85), {"80 / 10 / 10"}),
    "draws 15%": (lambda patch: patch.setattr(masking, "P_RANDOM", 0.15), {"80 / 10 / 10"}),
    "predicts specials": (  # and so more than the share of what is ordinary
        mask_tokens_with(masks_specials),
        {"no special piece is predicted", "predictions of a sequence", "pairs: predictions"},
    ),
    "draws specials": (mask_tokens_with(draws_specials), {"no special piece is drawn"}),
    "draws half of the vocabulary": (
        mask_tokens_with(draws_half),
        {"drawn ids are uniform", "every ordinary id is reachable", "lowest and highest drawn id"},
    ),
    "draws even ids": (mask_tokens_with(draws_even_ids), {"every ordinary id is reachable"}),
    "prefers the front": (mask_tokens_with(prefers_the_front), {"positions are uniform"}),
    "wrong labels": (mask_tokens_with(wrong_labels), {"labels are the text"}),
    "changes what is not predicted": (mask_tokens_with(touches_the_rest), {"labels are the text"}),
    "predicts too little": (
        lambda patch: patch.setattr(masking, "predictions_per_sequence", lambda *_: 10),
        {"predictions of a sequence", "pairs: predictions"},
    ),
    "reads one source only": (
        lambda patch: patch.setattr(PretrainingData, "_samples", reads_the_first_quarter),
        {"sources' shares of the samples"},
    ),
}


@pytest.mark.parametrize("kind", MASKINGS)
def test_a_wrong_masking_fails_its_check(sound: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    patch, expected = MASKINGS[kind]
    patch(monkeypatch)
    assert failures(look(sound)) == {name if name.startswith("pairs: ") else f"masking: {name}" for name in expected}


def test_a_train_split_too_small_for_a_sequence_fails_as_the_loader(sound: Path) -> None:
    found = look(sound, seq_len=1_000_000)
    assert failures(found) == {"masking: the loader"}
    assert page(found)


# The page, and what is no corpus.


class Tags(HTMLParser):
    """Every tag is closed by its own; what an element refers to outside is listed."""

    VOID = ("meta", "br", "link", "img", "input", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.outside: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.outside += [str(v) for k, v in attrs if k in ("src", "href", "xlink:href") and not str(v).startswith("#")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    tags.close()
    assert tags.open == []
    return tags


def test_the_page_stands_alone_and_shows_every_check(sound: Path) -> None:
    another_source_text(sound)
    found = look(sound)
    html = page(found)
    tags = parsed(html)
    assert tags.outside == []
    assert "script" not in tags.seen
    assert not re.search(r"url\((?!#)|@import", html)
    for check in found.checks:
        assert check.name in tags.text
        assert check.found in tags.text
        assert check.expected in tags.text
    assert HOSTILE in tags.text
    assert html.count("<svg") == 6
    assert "mathdefault" not in html
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert "Quite another text" in tags.text
    assert "its text gives" in tags.text


def test_what_is_no_corpus_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such directory"):
        audit(tmp_path / "no", training_loader)
    with pytest.raises(ValueError, match="not a finished corpus"):
        audit(tmp_path, training_loader)


@pytest.mark.parametrize("option", [{"positions": 0}, {"seq_len": 4}, {"seed": -1}])
def test_arguments_out_of_range_are_errors(tmp_path: Path, option: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected positions from 1"):
        audit(tmp_path, training_loader, **option)


def test_the_bounds_hold_what_they_should() -> None:
    generator = np.random.default_rng(0)
    for mean in (0.01, 1.0, 30.0, 2000.0):
        low, high = poisson_bounds(mean)
        drawn = generator.poisson(mean, 20_000)
        assert ((drawn < low) | (drawn > high)).sum() <= 6
    assert poisson_bounds(0.0) == (0, 0)
    for degrees in (1, 7, 125):
        low, high = chi_square_bounds(degrees)
        drawn = generator.chisquare(degrees, 20_000)
        assert ((drawn < low) | (drawn > high)).sum() <= 6
