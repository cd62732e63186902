"""What a finished slice leaves: its files by name, and the marker that says what they must be.

The marker (slices/00017.json) is written last, so a slice is done when it stands and every file has the bytes it says.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from preprocessing.base.files import write_whole
from preprocessing.build.documents import Tally
from preprocessing.build.plan import SLICES_FOLDER, Plan
from preprocessing.corpus.manifest import ShardInfo


@dataclass(frozen=True)
class FileInfo:
    """What a file of a slice must be."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Sample:
    """A document whose source text is kept. `row`: its place in the slice."""

    row: int
    source: str
    id: str
    title: str
    text: str


class UnitSpan(NamedTuple):
    """Which part of a unit a slice has read (see preprocessing.sources.read)."""

    unit: int
    start: int
    end: int


@dataclass(frozen=True)
class Marker:
    """A slice that is done.

    plan: the identity of the plan that it was made by. files: by name, the marker's own left out. samples: with the draw of
    each, the lowest first.
    """

    plan: str
    files: Mapping[str, FileInfo]
    shards: tuple[ShardInfo, ...]
    tally: Tally
    spans: tuple[UnitSpan, ...]
    samples: tuple[tuple[int, Sample], ...]

    def as_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "plan": self.plan,
            "files": {name: dataclasses.asdict(info) for name, info in self.files.items()},
            "shards": [dataclasses.asdict(info) for info in self.shards],
            "tally": self.tally.as_json(),
            "spans": [list(span) for span in self.spans],
            "samples": [[draw, dataclasses.asdict(sample)] for draw, sample in self.samples],
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The inverse of `as_json`. ValueError, KeyError, TypeError or AttributeError: not a marker."""
        return cls(
            plan=fields["plan"],
            files={name: FileInfo(**info) for name, info in fields["files"].items()},
            shards=tuple(ShardInfo(**info) for info in fields["shards"]),
            tally=Tally.from_json(fields["tally"]),
            spans=tuple(UnitSpan(*span) for span in fields["spans"]),
            samples=tuple((draw, Sample(**sample)) for draw, sample in fields["samples"]),
        )


def slice_path(work: Path, number: int, suffix: str) -> Path:
    """A slice's file."""
    return work / SLICES_FOLDER / f"{number:05d}.{suffix}"


def write_marker(work: Path, number: int, marker: Marker) -> None:
    """The slice is done: every file that the marker names stands."""
    write_whole(slice_path(work, number, "json"), json.dumps(marker.as_json()).encode())


def read_marker(work: Path, plan: Plan, number: int) -> Marker | None:
    """A finished slice's marker; None if it is not finished. ValueError: it was made by another plan."""
    path = slice_path(work, number, "json")
    if not path.is_file():
        return None
    try:
        marker = Marker.from_json(json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError, AttributeError):  # damaged: to be made again
        return None
    if marker.plan != plan.identity:
        raise ValueError(f"{path}: made by a plan with other settings or sources; move {work} away and begin again")
    for name, info in marker.files.items():
        file = path.with_name(name)
        if not file.is_file() or file.stat().st_size != info.bytes:
            return None
    return marker
