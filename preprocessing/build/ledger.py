"""The books of a build: which slices are done, what each source gave, whether it is what was promised."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preprocessing.base.arrays import StoredArray
from preprocessing.build.documents import Tally, check_skipped
from preprocessing.build.marker import Marker, read_marker, slice_path
from preprocessing.build.mixing import epochs
from preprocessing.build.plan import Gates, Plan
from preprocessing.build.survey import check_kept
from preprocessing.corpus.manifest import SPLITS, ShardInfo, SourceInfo
from preprocessing.text.duplicates import later_rows

TEMPLATES = 1000  # unknown ones that a manifest names: a whole Wikipedia has a hundred thousand


@dataclass(frozen=True)
class Finished:
    """A finished slice as `finalize` sees it: its marker, and the rows of DOCUMENT."""

    number: int
    source: str
    marker: Marker
    documents: StoredArray

    @property
    def shards(self) -> dict[str, ShardInfo]:
        """By split."""
        return {shard.split: shard for shard in self.marker.shards}


def finished_slices(folder: Path, plan: Plan) -> list[Finished]:
    """All slices. ValueError: some are not done."""
    finished, missing = [], []
    for number, one in enumerate(plan.slices):
        marker = read_marker(folder, plan, number)
        if marker is None:
            missing.append(number)
        else:
            documents = StoredArray(slice_path(folder, number, "documents.npy"))
            finished.append(Finished(number, one.source, marker, documents))
    if missing:
        named = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        raise ValueError(
            f"{folder}: {len(missing)} of {len(plan.slices)} slices are not done ({named}); "
            f"run `python -m preprocessing shard` for them, or `build`"
        )
    return finished


def source_infos(
    folder: Path,
    plan: Plan,
    finished: Sequence[Finished],
    lost: Sequence[NDArray[np.uint32]],
    reasons: Sequence[dict[str, int]],
    shards: Sequence[ShardInfo],
) -> tuple[SourceInfo, ...]:
    """Each source's account. lost: rows of each slice that went, reasons: how many for which.

    ValueError: too many bad records, a source of which nothing is left, or less than was expected or declared.
    """
    infos = []
    for source in plan.sources:
        own = [at for at, one in enumerate(finished) if one.source == source.name]
        tally, words = Tally(), 0
        for at in own:
            tally.add(finished[at].marker.tally)
            tally.dropped.update({reason: count for reason, count in reasons[at].items() if count})
            column = finished[at].documents["words"]
            words += int(column.sum(dtype=np.int64)) - int(column[lost[at]].sum(dtype=np.int64))
        kept = sum(shard.documents for shard in shards if shard.source == source.name)
        if tally.read != kept + (gone := tally.dropped.total()):
            raise ValueError(
                f"source {source.name}: {tally.read} documents read are not {kept} kept and {gone} dropped; "
                f"move {folder} away and build again"
            )
        check_kept(source, tally, kept, plan.settings.min_words)
        infos.append(
            SourceInfo(
                name=source.name,
                documents_read=tally.read,
                documents_kept=kept,
                words=words,
                dropped=dict(tally.dropped),
                documents=_by_split(shards, source.name, "documents"),
                tokens=_by_split(shards, source.name, "tokens"),
                dropped_lines=dict(tally.dropped_lines),
                skipped=dict(tally.skipped),
                skipped_examples=tuple(tally.examples),
                dropped_markup=dict(+tally.dropped_markup),
                unknown_templates=most_frequent(tally.unknown_templates, TEMPLATES),
                duplicate_ids=_duplicate_ids(folder, [finished[at] for at in own], [lost[at] for at in own]),
                origin=source.origin,
                files=source.files(),
            )
        )
    check_gates(infos, plan.gates, {source.name: source.declared_rows for source in plan.sources})
    times = epochs({info.name: info.tokens["train"] for info in infos}, plan.settings.epochs, plan.settings.weights)
    return tuple(replace(info, epochs=times[info.name]) for info in infos)


def most_frequent(counts: Mapping[str, int], most: int) -> dict[str, int]:
    """The most frequent names; of equally frequent ones the first by name."""
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:most])


def _by_split(shards: Sequence[ShardInfo], source: str, what: str) -> dict[str, int]:
    return {split: sum(getattr(s, what) for s in shards if s.split == split and s.source == source) for split in SPLITS}


def _duplicate_ids(folder: Path, own: Sequence[Finished], lost: Sequence[NDArray[np.uint32]]) -> int:
    later = later_rows([StoredArray(slice_path(folder, one.number, "ids.npy")) for one in own])
    return sum(len(np.setdiff1d(rows, gone)) for rows, gone in zip(later, lost, strict=True))


def check_gates(infos: Sequence[SourceInfo], gates: Gates, declared_rows: Mapping[str, int] | None = None) -> None:
    """ValueError: too many bad records, or a source that yields less than is expected, or less than it declares."""
    skipped = Tally()
    for info in infos:
        skipped.skipped.update(info.skipped)
        skipped.examples += info.skipped_examples
    check_skipped(skipped, gates.max_bad)
    for info in infos:
        rows = info.documents_read + sum(info.skipped.values())
        found = {"documents": info.documents_kept, "words": info.words, "rows": rows}
        for what, least in [*gates.least.get(info.name, {}).items(), ("rows", (declared_rows or {}).get(info.name, 0))]:
            if found[what] < least:
                raise ValueError(
                    f"source {info.name}: {found[what]:,} {what}, expected at least {least:,}; is the source whole?"
                )
