"""The plan of a build: what `tokenizer` decides, and every task and `finalize` read.

    OUT.work/plan.json          sources with their files, settings, slices, held-out limits, the tokenizer's sha256
    OUT.work/tokenizer-<its sha256's beginning>.model
    OUT.work/slices/            what the tasks leave (see preprocessing.build.slices)

The work folder lives until the corpus stands at OUT. Tasks may run anywhere and in any number: what a slice becomes
depends on the plan alone.
"""

import dataclasses
import hashlib
import json
import os
import platform
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field

from preprocessing.base.files import NOT_OFFERED, WRITING, file_sha256, sync_directory, write_whole
from preprocessing.build.settings import PlannedSettings, Settings, Strict
from preprocessing.corpus.manifest import Manifest, SourceInfo
from preprocessing.sources.types import Slice, Source, slices
from preprocessing.text.clean import CLEANING_VERSION
from preprocessing.text.sentences import SENTENCES_VERSION

FORMAT = "sibert-plan-1"
PLAN_FILE = "plan.json"
SLICES_FOLDER = "slices"
_OURS = re.compile(
    rf"({re.escape(PLAN_FILE)}|tokenizer-[0-9a-f]{{16}}\.model)({re.escape(WRITING)}.*)?|{SLICES_FOLDER}|corpus-.*-\d+"
)
PACKAGES = ("datasets", "numpy", "py3langid", "pyarrow", "rensa", "sentencepiece")
Counted = Literal["documents", "words"]  # what a source can be expected to yield


class Gates(Strict):
    """What a build must keep to; they decide whether there is a corpus, not what is in it.

    max_bad: records that may be no document. least: by source, how many documents or words it must yield at least.
    """

    max_bad: Annotated[int, Field(ge=0, description="0 or more")] = 0
    least: dict[str, dict[Counted, Annotated[int, Field(ge=0)]]] = Field(
        default_factory=dict, title="--expect", description="0 or more"
    )


@dataclass(frozen=True)
class Plan:
    """See the module. `heldout_limits`: source -> the highest draw that is held out."""

    sources: tuple[Source, ...]
    settings: PlannedSettings
    versions: dict[str, str]
    gates: Gates
    slices: tuple[Slice, ...]
    heldout_limits: dict[str, int]
    tokenizer_sha256: str

    @cached_property
    def identity(self) -> str:
        """Names all that shapes the corpus' bytes; not where its sources lie, nor the gates."""
        shaping = [request(self.sources, self.settings.as_json(), self.versions), self.heldout_limits, self.tokenizer_sha256]
        return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()

    def tokenizer(self, work: Path) -> Path:
        """The tokenizer's file in a work folder."""
        return work / tokenizer_name(self.tokenizer_sha256)

    def as_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain = {
            "sources": [source.as_json() for source in self.sources],
            "settings": self.settings.as_json(),
            "gates": self.gates.as_json(),
            "slices": [dataclasses.asdict(one) for one in self.slices],
        }
        return {"format": FORMAT, **fields, **plain}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The inverse of `as_json`. KeyError, TypeError or ValueError: not a plan."""
        rest = {name: value for name, value in fields.items() if name != "format"}
        rest["sources"] = tuple(Source.from_json(source) for source in fields["sources"])
        rest["settings"] = PlannedSettings(**fields["settings"])
        rest["gates"] = Gates(**fields["gates"])
        rest["slices"] = tuple(Slice(**one) for one in fields["slices"])
        return cls(**rest)


def tokenizer_name(sha256: str) -> str:
    """Named by its hash: builds with other settings that begin in the same folder at once do not meet."""
    return f"tokenizer-{sha256[:16]}.model"


def work_folder(out: Path) -> Path:
    """Where a build of `out` works."""
    return out.with_name(out.name + ".work")


def cut(sources: Sequence[Source], slice_mb: float) -> tuple[Slice, ...]:
    """Every source's slices, in order; their positions are their numbers."""
    return tuple(one for source in sources for one in slices(source, int(slice_mb * 1e6)))


def versions() -> dict[str, str]:
    """Of everything that shapes a corpus' bytes."""
    python = ".".join(platform.python_version_tuple()[:2])  # its Unicode tables
    rules = {"cleaning": str(CLEANING_VERSION), "sentences": str(SENTENCES_VERSION)}
    return {"python": python, **rules, **{name: version(name) for name in PACKAGES}}


def request(
    sources: Sequence[Source] | Sequence[SourceInfo], settings: dict[str, Any], versions: dict[str, str]
) -> dict[str, Any]:
    """What a user asked for, or what a manifest says was, as flat names and values: the same request is the same corpus."""
    files = {one.name: one.files() if isinstance(one, Source) else one.files for one in sources}
    return {
        **settings,
        **{f"source {source.name}": [source.origin, list(files[source.name])] for source in sources},
        **_named_versions(versions),
    }


def _named_versions(versions: dict[str, str]) -> dict[str, str]:
    return {f"version of {name}": number for name, number in versions.items()}


class Difference(NamedTuple):
    """A name of which two requests say different things; None is said by the one that does not know it."""

    name: str
    found: Any
    wanted: Any


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[Difference]:
    """All differences of two requests, in the order of the names; none if they are the same request."""
    found, wanted = json.loads(json.dumps([found, wanted]))
    names = sorted(wanted.keys() | found.keys())
    return [Difference(name, found.get(name), wanted.get(name)) for name in names if wanted.get(name) != found.get(name)]


def differences_of_settings(manifest: Manifest, wanted: Settings) -> list[Difference]:
    """The settings that a corpus was not built with, in their own order, before anybody has looked at the sources: what these
    alone decide (slice_mb, unless it is asked for) is as it was."""
    left_open = {"slice_mb": manifest.settings.get("slice_mb")} if wanted.slice_mb is None else {}
    order = list(Settings.model_fields)
    found = differences(manifest.settings, {**wanted.as_json(), **left_open})
    return sorted(found, key=lambda other: order.index(other.name) if other.name in order else len(order))


def check_same(out: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """ValueError naming the first difference between what was begun or built at `out`, and what is asked for now."""
    if others := differences(found, wanted):
        other = others[0]
        raise ValueError(
            f"{out}: exists, made with {other.name} {_brief(other.found)}, now it is "
            f"{_brief(other.wanted)}; choose another --out, or move it away"
        )


def _brief(value: object) -> str:
    """A setting or a source's fingerprint, short enough for a line."""
    if value is None:
        return "(none)"
    if isinstance(value, list):
        origin, files = value
        named = [f"{f['path']} {f['bytes']} bytes sha256 {f['sha256'][:12]}…" for f in files]
        return "; ".join(named[:3] + [f"and {len(named) - 3} more"] * (len(named) > 3)) or str(origin)
    return repr(value)


def write_plan(work: Path, plan: Plan, *, first: bool) -> bool:
    """Write plan.json, whole or not at all; `first`: unless there is one, which is told by the result."""
    content = (json.dumps(plan.as_json(), indent=1, sort_keys=True) + "\n").encode()
    if not first:
        write_whole(work / PLAN_FILE, content)
        return True
    new = work / f"{PLAN_FILE}{WRITING}{socket.gethostname()}-{os.getpid()}-new"
    write_whole(new, content)
    try:
        os.link(new, work / PLAN_FILE)  # unlike a rename, it replaces nothing
    except FileExistsError:
        return False
    except OSError as error:  # a file system without links
        if error.errno not in NOT_OFFERED:
            raise
        os.replace(new, work / PLAN_FILE)
    finally:
        new.unlink(missing_ok=True)
    sync_directory(work)
    return True


def read_plan(work: Path) -> Plan:
    """The plan in a work folder. FileNotFoundError: there is none. ValueError: not one, or another tokenizer beside it."""
    path = work / PLAN_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; begin with `python -m preprocessing tokenizer` (or do all with `build`)"
        )
    try:
        fields = json.loads(path.read_bytes())
        if fields["format"] != FORMAT:
            raise ValueError(f"format {fields['format']!r}, expected {FORMAT!r}")
        plan = Plan.from_json(fields)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a plan of this version ({error}); move {work} away and begin again") from None
    if not (tokenizer := plan.tokenizer(work)).is_file() or file_sha256(tokenizer) != plan.tokenizer_sha256:
        raise ValueError(f"{tokenizer}: missing, or not the plan's; move {work} away and begin again")
    if (here := versions()) != plan.versions:
        check_same(
            work, {f"version of {k}": v for k, v in plan.versions.items()}, {f"version of {k}": v for k, v in here.items()}
        )
    return plan


def begun(work: Path) -> bool:
    """Whether a plan stands there. ValueError: the folder holds what is not ours."""
    if not work.exists():
        return False
    for path in sorted(work.iterdir()):
        if not _OURS.fullmatch(path.name):
            raise ValueError(f"{path}: not a build's file, and {work} is where it works; move it away or choose another --out")
    return (work / PLAN_FILE).is_file()
