"""MNLI: JSON lines as in multinli_1.0, or GLUE's TSV. Pairs without a gold label ("-") are left out, as is usual."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.tasks.examples import LABELS, Pair, check_ids
from pipeline.tasks.files import parse_json, read_text

COLUMNS = ("sentence1", "sentence2", "gold_label")


def read_mnli(path: Path) -> list[Pair]:
    """The labelled pairs of a file (.jsonl, .json, .tsv; each perhaps .gz), in its order; a pair's id is its pairID, or else
    its number among all pairs of the file, from 0. ValueError, naming file and line, for another task's data, an unknown label,
    an empty sentence, an id that is there twice."""
    rows = list(_tsv(path) if ".tsv" in path.suffixes else _json_lines(path))
    pairs = []
    for number, (line, row) in enumerate(rows):
        missing = [column for column in COLUMNS if not isinstance(row.get(column), str)]
        if missing:
            raise ValueError(f"{path}: line {line}: no {', '.join(missing)}: not MNLI with its labels")
        if row["gold_label"] == "-":
            continue
        pairs.append(pair_of(str(row.get("pairID", number)), row, f"{path}: line {line}"))
    if not pairs:
        raise ValueError(f"{path}: no labelled pair in it ({len(rows)} pairs)")
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


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number, text) of the lines that are not empty, the first is 1. A line ends at "\\n" or "\\r\\n" alone: sentences hold
    other breaks."""
    for number, line in enumerate(read_text(path).split("\n")):
        if line.strip():
            yield number + 1, line.removesuffix("\r")


def _json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in _lines(path):
        row = parse_json(line, f"{path}: line {number}: not JSON", "; expected a pair a line")
        if not isinstance(row, dict):
            raise ValueError(f"{path}: line {number}: expected an object, got {type(row).__name__}")
        yield number, row


def _tsv(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """GLUE's files quote nothing: a tab always ends a field, and a quotation mark is text."""
    lines = _lines(path)
    names = next(lines, (1, ""))[1].split("\t")
    for number, line in lines:
        yield number, dict(zip(names, line.split("\t"), strict=False))
