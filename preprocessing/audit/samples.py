"""Documents beside their source text: what samples.jsonl's text gives must be what stands in the shard."""

import json
import random
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import sentencepiece

from preprocessing.audit.check import Check, without_problems
from preprocessing.audit.shards import StoredShard
from preprocessing.corpus.manifest import SAMPLES_FILE
from preprocessing.corpus.reader import SPECIAL_PIECES
from preprocessing.text.clean import clean
from preprocessing.text.sentences import split_sentences

NAME = "documents and their source text"
EXPECTED = f"cleaned, split and tokenized, each text of {SAMPLES_FILE} is its document's first sentences, token for token"
FIELDS = {"shard": str, "document": int, "source": str, "id": str, "title": str, "text": str}
SHOWN = 6
SHOWN_CHARACTERS = 1500


def sample_check(
    directory: Path,
    shards: Mapping[str, StoredShard],
    tokenizer: sentencepiece.SentencePieceProcessor,
    seed: int,
) -> tuple[Check, list[dict[str, Any]]]:
    """The check over all lines of samples.jsonl, and a handful of documents to show (first of all the wrong ones)."""
    try:
        lines = (directory / SAMPLES_FILE).read_bytes().splitlines()
        samples = [_parsed(line, number) for number, line in enumerate(lines, 1)]
    except (OSError, ValueError) as error:
        return Check(NAME, False, f"{SAMPLES_FILE}: {error}", EXPECTED), []
    if not samples:
        return Check(NAME, False, f"{SAMPLES_FILE} is empty", EXPECTED), []
    compared = [_compared(sample, shards, tokenizer) for sample in samples]
    problems = [f"{row['shard']} document {row['document']}: {row['difference']}" for row in compared if row["difference"]]
    tokens = sum(row["tokens"] for row in compared)
    check = without_problems(NAME, problems, f"{len(samples):,} documents, {tokens:,} tokens alike", EXPECTED)
    return check, _chosen(compared, seed)


def _parsed(line: bytes, number: int) -> dict[str, Any]:
    """One line. ValueError: not what the format says."""
    sample = json.loads(line)
    for name, kind in FIELDS.items():
        if not isinstance(sample, dict) or not isinstance(sample.get(name), kind):
            raise ValueError(f"line {number}: {name} is not {kind.__name__}")
    return sample


def _chosen(rows: Sequence[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """The wrong ones, then random ones, every source in turn."""
    shuffled = random.Random(seed).sample(list(rows), len(rows))
    turn: dict[str, int] = {}
    turns = []
    for row in shuffled:
        turn[row["source"]] = turn.get(row["source"], 0) + 1
        turns.append((not row["difference"], turn[row["source"]]))
    order = sorted(range(len(shuffled)), key=turns.__getitem__)
    return [shuffled[i] for i in order[:SHOWN]]


def _compared(
    sample: dict[str, Any], shards: Mapping[str, StoredShard], tokenizer: sentencepiece.SentencePieceProcessor
) -> dict[str, Any]:
    """The sample with its `difference` ("" if there is none), `tokens` compared, and the shard's `sentences` decoded."""
    row = {**sample, "text": _cut(sample["text"]), "tokens": 0, "sentences": [], "difference": ""}
    shard = shards.get(sample["shard"])
    if shard is None or not 0 <= sample["document"] < shard.info.documents:
        return {**row, "difference": "there is no such document in a readable shard"}
    tokens, ends = (values.tolist() for values in shard.document(sample["document"]))
    paragraphs = clean(sample["text"]).paragraphs
    sentences = [sentence for paragraph in paragraphs for sentence in split_sentences(paragraph)]
    # Sentences that the tokenizer normalises away are no sentences.
    expected = [ids for ids in tokenizer.encode(sentences) if ids]
    row["tokens"] = sum(map(len, expected))
    row["sentences"] = _decoded(tokens, ends[: len(expected)], tokenizer)
    for name in ("source", "id", "title"):
        if (stored := shard.strings[name][sample["document"]].as_py()) != sample[name]:
            return {**row, "difference": f"{name} {sample[name]!r}, the shard says {stored!r}"}
    return {**row, "difference": _difference(expected, tokens, ends, tokenizer)}


def _difference(
    expected: Sequence[Sequence[int]],
    tokens: Sequence[int],
    ends: Sequence[int],
    tokenizer: sentencepiece.SentencePieceProcessor,
) -> str:
    if not expected:
        return "its text gives no tokens"
    flat = [token for sentence in expected for token in sentence]
    stored = tokens[:-1]
    for index, (want, got) in enumerate(zip(flat, stored, strict=False)):
        if want != got:
            context = _text(tokens[max(0, index - 8) : index], tokenizer)
            return f"token {index} is {_piece(got, tokenizer)}, its text gives {_piece(want, tokenizer)}, after “{context}”"
    if len(flat) > len(stored):
        return f"it ends after {len(stored)} tokens, its text gives {len(flat)}"
    for index, (want, got) in enumerate(zip(accumulate(map(len, expected)), ends, strict=False)):
        if want != got:
            return f"sentence {index} ends at token {got}, by its text at {want}"
    return ""


def _piece(token: int, tokenizer: sentencepiece.SentencePieceProcessor) -> str:
    known = token < tokenizer.get_piece_size()
    return f"{token} {tokenizer.id_to_piece(token)!r}" if known else f"{token} (no piece)"


def _text(tokens: Sequence[int], tokenizer: sentencepiece.SentencePieceProcessor) -> str:
    pieces = [tokenizer.id_to_piece(token) if token < tokenizer.get_piece_size() else f" [{token}] " for token in tokens]
    text = "".join(f" {piece} " if piece in SPECIAL_PIECES else piece.replace("▁", " ") for piece in pieces)
    return " ".join(text.split())


def _decoded(tokens: Sequence[int], ends: Sequence[int], tokenizer: sentencepiece.SentencePieceProcessor) -> list[str]:
    """The sentences' text, about SHOWN_CHARACTERS of it."""
    sentences: list[str] = []
    for start, end in pairwise([0, *ends]):
        if sum(map(len, sentences)) > SHOWN_CHARACTERS:
            return [*sentences, "…"]
        sentences.append(_text(tokens[start:end], tokenizer))
    return sentences


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " …"
