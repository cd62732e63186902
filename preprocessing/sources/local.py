"""Local files as a source: which ones a pattern matches, of what kind they are, and what they hold, hashed."""

import codecs
import glob
import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from preprocessing.base.files import file_sha256
from preprocessing.sources.blocks import Damage, blocks_of, is_compressed
from preprocessing.sources.records import plain
from preprocessing.sources.types import LEGAL, Source, Unit

_PACKED = r"(\.gz|\.bz2|\.xz|\.zst)?$"
# By name; what is in them decides where one name is used for several kinds (`_look_inside`). Wikimedia calls the parts of a big
# dump ….xml-p1p41242.bz2, WikiExtractor its files wiki_00.
KINDS = {
    "jsonl": re.compile(rf"\.(jsonl|ndjson|json){_PACKED}|(?<![^/])wiki_\d+{_PACKED}"),
    "parquet": re.compile(r"\.parquet$"),
    "text": re.compile(rf"\.txt{_PACKED}"),
    "mediawiki": re.compile(rf"\.xml(-p\d+p\d+)?{_PACKED}"),
}
SENTENCES = "sentences"
HASHING_THREADS = 8


def local_source(label: str, pattern: str, *, column: str = "", sentences: bool = False) -> Source:
    """The files that a path or glob names, in the order of their paths. FileNotFoundError: none. ValueError: of what kind?

    column: where JSON and Parquet have the text. sentences: text files hold a sentence a line, documents between blank lines.
    """
    paths = [Path(pattern)] if os.path.isfile(pattern) else sorted(map(Path, glob.glob(pattern, recursive=True)))
    if any(path.is_dir() for path in paths) and len(paths) == 1:
        raise ValueError(
            f"--source {pattern}: a directory, expected files; name them by a glob in quotes ('{pattern}/*.jsonl.gz'), or the "
            f"directory as a dataset (hf:{paths[0].absolute()})"
        )
    if broken := [path for path in paths if not path.is_file() and not path.is_dir()]:
        raise FileNotFoundError(f"--source {pattern}: {broken[0]} is no file (a link to nothing?); mend it or take it out")
    paths = [path for path in paths if path.is_file()]
    if not paths:
        raise FileNotFoundError(f"--source {pattern}: no such file; {LEGAL}")
    kinds = {path: SENTENCES if sentences and KINDS["text"].search(path.name) else _kind(path) for path in paths}
    if len(set(kinds.values())) > 1:
        one, other = paths[0], next(path for path in paths if kinds[path] != kinds[paths[0]])
        raise ValueError(f"--source {pattern}: files of two kinds ({one.name}, {other.name}); give each kind a --source")
    kind = kinds[paths[0]]
    with ThreadPoolExecutor(min(HASHING_THREADS, os.cpu_count() or 1)) as pool:  # hashlib releases the GIL
        units = tuple(pool.map(lambda path: _unit(path, kind), paths))
    if column and kind not in ("jsonl", "json array", "parquet"):
        raise ValueError(f"--source {pattern}: files of this kind have no columns; leave #{column} out")
    name = label or next((suffix.sub("", paths[0].name) for suffix in KINDS.values() if suffix.search(paths[0].name)), "")
    if not name:
        raise ValueError(f"--source {pattern}: a source needs a name; give it one: --source LABEL={pattern}")
    return Source(plain(name), kind, units, {"kind": kind, **({"column": column} if column else {})})


def check_unchanged(unit: Unit) -> None:
    """OSError or ValueError, naming the file, if it is not what was planned: gone, of another size, or with other content."""
    path = Path(unit.path)
    try:
        found = path.stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: gone since the build was planned; put it back, or start again without it") from None
    if found.st_size != unit.bytes:
        raise ValueError(f"{path}: {found.st_size} bytes, expected {unit.bytes} as planned; put it back, or start again")
    if found.st_mtime_ns != unit.mtime_ns and file_sha256(path) != unit.sha256:
        raise ValueError(f"{path}: other content than when the build was planned (sha256); put it back, or start again")


def _kind(path: Path) -> str:
    for kind, suffix in KINDS.items():
        if suffix.search(path.name):
            return _look_inside(path, kind) if kind in ("jsonl", "text") else kind
    raise ValueError(
        f"{path}: of no kind that can be read; expected *.jsonl, *.ndjson, *.json, *.txt or *.xml (also .gz, .bz2, .xz, .zst), "
        f"*.parquet, or WikiExtractor's wiki_00"
    )


def _look_inside(path: Path, kind: str) -> str:
    """JSON lines or one JSON array; text or WikiExtractor's documents."""
    with open(path, "rb") as file, suppress(Damage):  # whoever reads the file meets the damage, too
        block = next(blocks_of(file, path.name), None)
        start = (b"" if block is None else block.data).removeprefix(codecs.BOM_UTF8).lstrip()
        if start.startswith(b"<doc id="):
            return "extracted"
        if (
            kind == "jsonl"
            and start.startswith(b"[")
            and path.name.removesuffix(path.suffix * is_compressed(path.name)).endswith(".json")
        ):
            return "json array"
    return kind


def _unit(path: Path, kind: str) -> Unit:
    status = path.stat()
    rows = 0
    if kind == "parquet":
        from preprocessing.sources.parquet import count_rows  # not above: pyarrow comes with it

        rows = count_rows(path)
    return Unit(str(path.absolute()), status.st_size, rows, file_sha256(path), status.st_mtime_ns)
