"""MNLI: JSON lines as in multinli_1.0, or GLUE's TSV. Pairs without a gold label ("-") are left out, as is usual."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.tasks.examples import LABELS, Pair, check_ids
from pipeline.tasks.files import read_text

COLUMNS = ("sentence1", "sentence2", "gold_label")


def read_mnli(path: Path) -> list[Pair]:
    """The labelled pairs of a file (.jsonl, .json, .tsv; each perhaps .gz), in its order; a pair's id is its pairID, or else
    the number of its line, from 0. ValueError, naming file and line, for another task's data, an unknown label, an empty
    sentence, an id that is there twice."""
    is_tsv = ".tsv" in path.suffixes
    rows = _tsv(path) if is_tsv else _json_lines(path)
    pairs, number = [], 0
    for number, row in enumerate(rows):
        missing = [column for column in COLUMNS if not isinstance(row.get(column), str)]
        if missing:
            raise ValueError(f"{path}: line {number + 1 + is_tsv}: no {', '.join(missing)}: not MNLI with its labels")
        if row["gold_label"] == "-":
            continue
        pairs.append(pair_of(str(row.get("pairID", number)), row, f"{path}: line {number + 1 + is_tsv}"))
    if not pairs:
        raise ValueError(f"{path}: no labelled pair in it ({number} lines)")
    check_ids((pair.id for pair in pairs), str(path))
    return pairs


def pair_of(id_: str, row: Mapping[str, str], where: str) -> Pair:
    """A pair of two sentences that are there, with its label."""
    if row["gold_label"] not in LABELS:
        raise ValueError(f"{where}: gold_label {row['gold_label']!r}, expected one of {', '.join(LABELS)}, or - for none")
    empty = [column for column in COLUMNS[:2] if not row[column].strip()]
    if empty:
        raise ValueError(f"{where}: {empty[0]} is empty: remove the pair")
    return Pair(id_, row["sentence1"], row["sentence2"], LABELS.index(row["gold_label"]))


def _json_lines(path: Path) -> Iterator[Mapping[str, str]]:
    for number, line in enumerate(read_text(path).split("\n")):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: line {number + 1}: not JSON: {error}; expected a pair a line") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}: line {number + 1}: expected an object, got {type(row).__name__}")
        yield row


def _tsv(path: Path) -> Iterator[Mapping[str, str]]:
    yield from csv.DictReader(io.StringIO(read_text(path), newline="\n"), delimiter="\t", quoting=csv.QUOTE_NONE)
