"""Sources by name: what the command line says, what a plan keeps of it, and the slices that are read one at a time.

    builtin                                      Python's own reference and docstrings
    PATH[#COLUMN] or LABEL=PATH[#COLUMN]         local files of one kind; PATH may be a (quoted) glob
    sentences:PATH                               text files with a sentence a line and blank lines between documents
    wikipedia[:CONFIG]                           hf:wikimedia/wikipedia, by default CONFIG 20231101.en
    books[:ID]                                   hf:ID, by default BOOKS_ID
    hf:ID[:CONFIG][@REVISION][#COLUMN]           a dataset of the Hugging Face hub, or a local directory of data files

`LABEL=` goes before all but builtin. A local path that exists wins over the words.
"""

import dataclasses
import os.path
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preprocessing.sources.records import plain

BUILTIN = "builtin"
LEGAL = (
    "expected builtin, PATH[#COLUMN] or LABEL=PATH (*.jsonl, *.json, *.parquet, *.txt, *.xml; a glob in quotes), "
    "sentences:PATH, wikipedia[:CONFIG], books[:ID] or hf:ID[:CONFIG][@REVISION][#COLUMN]"
)
UNCUT_KINDS = ("text", "json array", "builtin")


@dataclass(frozen=True)
class Unit:
    """One file, one shard of a hub dataset ("shard 3 of 41"), or the built-in text (""). What is unknown is 0 or ""."""

    path: str
    bytes: int
    rows: int = 0
    sha256: str = ""
    mtime_ns: int = 0


@dataclass(frozen=True)
class Source:
    """A named stream of documents, always in the same order. `origin` is what pins it, for the manifest: no local path.

    `location` is where a hub dataset is loaded from: its id, or the local directory. `declared_rows` is how many rows it says
    it has, 0 if it does not say (a directory says so once it has been prepared, so this pins nothing).
    """

    name: str
    kind: str
    units: tuple[Unit, ...]
    origin: dict[str, Any]
    location: str = ""
    declared_rows: int = 0

    def files(self) -> tuple[dict[str, Any], ...]:
        """{"path", "bytes", "sha256"} of each local file; the path is below the directory that holds them all."""
        named = zip(self.unit_names(), self.units, strict=True)
        return tuple({"path": name, "bytes": unit.bytes, "sha256": unit.sha256} for name, unit in named if unit.sha256)

    def unit_names(self) -> list[str]:
        """What the units are called in messages and ids: file names, with folders if they lie in several."""
        if self.kind == "hub":
            dataset = Path(self.location).name
            return [f"{dataset}/{unit.path}" if len(self.units) > 1 else dataset for unit in self.units]
        if self.kind == "builtin":
            return [self.name]
        top = os.path.commonpath([os.path.dirname(unit.path) for unit in self.units])
        return [plain(os.path.relpath(unit.path, top)) for unit in self.units]

    def as_json(self) -> dict[str, Any]:
        """As plain values, for a file that other processes read."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(fields: dict[str, Any]) -> "Source":
        """The source that `as_json` wrote."""
        return Source(**{**fields, "units": tuple(Unit(**unit) for unit in fields["units"])})


@dataclass(frozen=True)
class Slice:
    """One unit of work: the whole units [first_unit, last_unit], or one part of one big unit."""

    source: str
    first_unit: int
    last_unit: int
    part: int = 0
    parts: int = 1


def slices(source: Source, slice_bytes: int) -> tuple[Slice, ...]:
    """The slices that a source is read in, in its order: small files together up to slice_bytes, big ones in parts.

    A text file is one document and never cut; a shard of a streamed dataset is a slice.
    """
    if slice_bytes < 1:
        raise ValueError(f"slice_bytes is {slice_bytes}, expected at least 1")
    return tuple(_slices(source, slice_bytes))


def _slices(source: Source, slice_bytes: int) -> Iterator[Slice]:
    streaming = bool(source.origin.get("streaming"))
    first, group_bytes = 0, 0  # the units from `first` on wait to become a slice
    for index, unit in enumerate(source.units):
        alone = streaming or unit.bytes > slice_bytes
        if index > first and (alone or group_bytes + unit.bytes > slice_bytes):
            yield Slice(source.name, first, index - 1)
            first, group_bytes = index, 0
        group_bytes += unit.bytes
        if alone:
            cut = not streaming and source.kind not in UNCUT_KINDS
            parts = -(-unit.bytes // slice_bytes) if cut else 1
            yield from (Slice(source.name, index, index, part, parts) for part in range(parts))
            first, group_bytes = index + 1, 0
    if first < len(source.units):
        yield Slice(source.name, first, len(source.units) - 1)
