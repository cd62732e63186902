"""Sources by name: what the command line says, what a plan keeps of it, and the slices that are read one at a time.

    builtin                                      Python's own reference and docstrings
    PATH or LABEL=PATH                           local files of one kind; PATH may be a (quoted) glob
    wikipedia[:CONFIG]                           hf:wikimedia/wikipedia, by default CONFIG 20231101.en
    books[:ID]                                   hf:ID, by default BOOKS_ID
    hf:ID[:CONFIG][@REVISION][#COLUMN]           a dataset of the Hugging Face hub, or a local directory of data files

`LABEL=` goes before all but builtin. A local path that exists wins over the words.
"""

import dataclasses
import itertools
import os.path
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preprocessing.sources.records import plain

BUILTIN = "builtin"
WIKIPEDIA_ID = "wikimedia/wikipedia"
WIKIPEDIA_CONFIG = "20231101.en"
BOOKS_ID = "lucadiliello/bookcorpusopen"
"""BookCorpusOpen, 17,868 whole books in parquet with `title` and `text`. The usual `bookcorpus` is a script, which
`datasets` runs no more, and its parquet copies (rojagtap/bookcorpus) are 74 million rows of one sentence: no documents."""
LEGAL = (
    "expected builtin, PATH or LABEL=PATH (*.jsonl, *.parquet, *.txt, *.xml; a glob in quotes), wikipedia[:CONFIG], books[:ID] "
    "or hf:ID[:CONFIG][@REVISION][#COLUMN]"
)
UNCUT_KINDS = ("text", "builtin")


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


def parse_sources(arguments: list[str], *, streaming: bool = False) -> tuple[Source, ...]:
    """The sources named on the command line, sorted by name, so that the order on the command line changes nothing.

    Hashes every local file; resolves every hub dataset to a commit. ValueError or OSError, one line: an unknown form,
    a pattern that matches nothing, a label given twice, files of another kind, a dataset that cannot be had.
    """
    sources: list[Source] = []
    for argument in arguments:
        sources += _parse(argument, streaming)
    sources.sort(key=lambda source: source.name)
    for one, other in itertools.pairwise(sources):
        if one.name == other.name:
            raise ValueError(f"--source: two sources are called {one.name!r}; give one a label: --source LABEL=PATH")
    if not sources:
        raise ValueError(f"no source; {LEGAL}")
    return tuple(sources)


_LABELLED = re.compile(r"([^/:=]+)=(.+)", re.DOTALL)
_WIKIPEDIA = re.compile(r"wikipedia(?::([^@#]+))?(@[^#]+)?")
_HUB = re.compile(r"([\w.-]+(?:/[\w.-]+)?|\.{0,2}/.+?)(?::([^@#:]+))?(?:@([^#]+))?(?:#(.+))?", re.DOTALL)
_WORD = re.compile(r"[A-Za-z]\w*:")


def _parse(argument: str, streaming: bool) -> tuple[Source, ...]:
    # Imported here: they import this file's dataclasses, and pyarrow.
    from preprocessing.sources.builtin import builtin_sources
    from preprocessing.sources.local import local_source

    labelled = None if os.path.exists(argument) else _LABELLED.fullmatch(argument)
    label, target = (labelled[1], labelled[2]) if labelled else ("", argument)
    if os.path.exists(target):
        return (local_source(label, target),)
    if target == BUILTIN:
        if label:
            raise ValueError(f"--source {argument}: builtin is two sources with names of their own; leave {label}= out")
        return builtin_sources()
    if wikipedia := _WIKIPEDIA.fullmatch(target):
        config, revision = wikipedia[1] or WIKIPEDIA_CONFIG, wikipedia[2] or ""
        return (_hub(label or "wikipedia", f"{WIKIPEDIA_ID}:{config}{revision}", argument, streaming),)
    if target == "books" or target.startswith("books:"):
        return (_hub(label or "books", target.removeprefix("books").removeprefix(":") or BOOKS_ID, argument, streaming),)
    if target.startswith("hf:"):
        return (_hub(label, target.removeprefix("hf:"), argument, streaming),)
    if not target or _WORD.match(target):
        raise ValueError(f"--source {argument}: no such source; {LEGAL}")
    return (local_source(label, target),)


def _hub(label: str, dataset: str, argument: str, streaming: bool) -> Source:
    from preprocessing.sources.hub import hub_source

    form = _HUB.fullmatch(dataset)
    if os.path.isdir(dataset):  # whatever characters its name has
        parts: tuple[str, str, str, str] = (dataset, "", "", "")
    elif form:
        parts = (form[1], form[2] or "", form[3] or "", form[4] or "")
    else:
        raise ValueError(f"--source {argument}: {dataset!r} names no dataset; {LEGAL}")
    id_, config, revision, column = parts
    name = label or Path(id_).name
    return hub_source(name, id_, config=config, revision=revision, column=column or "text", streaming=streaming)
