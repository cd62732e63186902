"""Local files as a source: which ones a pattern matches, of what kind they are, and what they hold, hashed."""

import glob
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from preprocessing.base.files import file_sha256
from preprocessing.sources.records import plain
from preprocessing.sources.types import LEGAL, Source, Unit

# Wikimedia calls the parts of a big dump ….xml-p1p41242.bz2.
KINDS = {
    "jsonl": re.compile(r"\.jsonl(\.gz|\.bz2)?$"),
    "parquet": re.compile(r"\.parquet$"),
    "text": re.compile(r"\.txt(\.gz|\.bz2)?$"),
    "mediawiki": re.compile(r"\.xml(-p\d+p\d+)?(\.gz|\.bz2)?$"),
}
HASHING_THREADS = 8


def local_source(label: str, pattern: str) -> Source:
    """The files that a path or glob names, in the order of their paths. FileNotFoundError: none. ValueError: of what kind?"""
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
    kinds = {path: _kind(path) for path in paths}
    if len(set(kinds.values())) > 1:
        one, other = paths[0], next(path for path in paths if kinds[path] != kinds[paths[0]])
        raise ValueError(f"--source {pattern}: files of two kinds ({one.name}, {other.name}); give each kind a --source")
    kind = kinds[paths[0]]
    with ThreadPoolExecutor(min(HASHING_THREADS, os.cpu_count() or 1)) as pool:  # hashlib releases the GIL
        units = tuple(pool.map(lambda path: _unit(path, kind), paths))
    name = label or KINDS[kind].sub("", paths[0].name)
    if not name:
        raise ValueError(f"--source {pattern}: a source needs a name; give it one: --source LABEL={pattern}")
    return Source(plain(name), kind, units, {"kind": kind})


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
            return kind
    raise ValueError(
        f"{path}: of no kind that can be read; expected *.jsonl[.gz|.bz2], *.parquet, *.txt[.gz|.bz2] or *.xml[.gz|.bz2]"
    )


def _unit(path: Path, kind: str) -> Unit:
    status = path.stat()
    rows = 0
    if kind == "parquet":
        from preprocessing.sources.parquet import count_rows  # not above: pyarrow comes with it

        rows = count_rows(path)
    return Unit(str(path.absolute()), status.st_size, rows, file_sha256(path), status.st_mtime_ns)
