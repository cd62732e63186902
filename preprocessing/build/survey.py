"""What has to be known before the first slice is encoded: each source's held-out limit, and the tokenizer's text.

Both come from an evenly spread part of each source (SURVEY_MB of its files), so the time does not grow with the corpus.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from preprocessing.build.documents import Tally, check_skipped, kept_documents
from preprocessing.build.plan import Gates
from preprocessing.build.settings import PlannedSettings
from preprocessing.build.slices import reader
from preprocessing.build.workers import work
from preprocessing.sources.read import Reader
from preprocessing.sources.types import Slice, Source
from preprocessing.text.tokenizer import TextSample

SURVEY_MB = 64.0
DRAWS = 1 << 64
MAX_BAD = 1 << 62  # all are counted; whether they are too many is seen when all are


@dataclass(frozen=True)
class Survey:
    """`heldout_limits`: source -> the highest draw that is held out. `sample`: paragraphs, none of them held out."""

    heldout_limits: dict[str, int]
    sample: list[str]


class _Task(NamedTuple):
    slice: Slice
    fraction: float  # of its source that is surveyed
    settings: PlannedSettings


class _Found(NamedTuple):
    source: str
    tally: Tally
    draws: list[int]
    sample: TextSample


def survey(
    sources: Sequence[Source],
    cuts: Sequence[Slice],
    settings: PlannedSettings,
    gates: Gates,
    workers: int,
    done: Callable[[Any], None],
) -> Survey:
    """Read the surveyed slices. ValueError: a source of which nothing is kept; nothing to hold out; too many bad records.

    A document is held out if its draw, a seeded hash of its text, is below `heldout_fraction`: nobody has to know the other
    documents. A source none of whose surveyed documents is that low gives the lowest one it has (of two or more).
    """
    tasks, fractions = _tasks(sources, cuts, settings)
    tallies = {source.name: Tally() for source in sources}
    draws: dict[str, list[int]] = {source.name: [] for source in sources}
    sample = TextSample(settings.seed, settings.sample_characters)

    def collect(found: _Found) -> None:
        tallies[found.source].add(found.tally)
        draws[found.source] += found.draws
        sample.merge(found.sample)
        done(found)

    work(_survey_slice, tasks, partial(reader, tuple(sources), settings), workers, collect)
    skipped = Tally()
    for found in tallies.values():
        skipped.add(found)
    check_skipped(skipped, gates.max_bad, len(tasks) / len(cuts))
    limits = {}
    for source in sources:
        whole = fractions[source.name] == 1
        if whole:
            check_kept(source, tallies[source.name], len(draws[source.name]), settings.min_words)
        limits[source.name] = heldout_limit(draws[source.name], settings.heldout_fraction, whole)
    if all(fraction == 1 for fraction in fractions.values()) and sum(map(len, draws.values())) < 2:
        raise ValueError("1 document kept: nothing can be held out for evaluation; give at least 2 documents")
    # By draw: the same text may stand in a source with a higher limit, too.
    heldout = {draw for name, found in draws.items() for draw in found if draw <= limits[name]}
    return Survey(limits, sample.paragraphs(without=lambda tag: tag[1] in heldout))


def _tasks(sources: Sequence[Source], cuts: Sequence[Slice], settings: PlannedSettings) -> tuple[list[_Task], dict[str, float]]:
    tasks, fractions = [], {}
    most = max(1, round(SURVEY_MB / settings.slice_mb))
    for source in sources:
        own = [one for one in cuts if one.source == source.name]
        count = min(len(own), most)
        fractions[source.name] = count / len(own)
        chosen = [own[i * len(own) // count] for i in range(count)]
        tasks += [_Task(one, fractions[source.name], settings) for one in chosen]
    return tasks, fractions


def _survey_slice(reader: Reader, task: _Task) -> _Found:
    tally, draws = Tally(), []
    sample = TextSample(task.settings.seed, task.settings.sample_characters)
    for document in kept_documents(reader.read(task.slice), task.settings, MAX_BAD, tally):
        draws.append(document.draw)
        for paragraph in document.paragraphs:
            sample.add(paragraph, (task.slice.source, document.draw), task.fraction)
    return _Found(task.slice.source, tally, draws, sample)


def heldout_limit(draws: list[int], fraction: float, whole: bool) -> int:
    """The highest draw to be held out of a source with these draws; `whole`: they are all it has, so some must remain."""
    limit = int(fraction * DRAWS) - 1
    if len(draws) >= 2:
        limit = max(limit, min(draws))
        if whole and limit >= max(draws):
            limit = max(draws) - 1
    return limit


def check_kept(source: Source, tally: Tally, kept: int, min_words: int) -> None:
    """ValueError if a source is empty, or if nothing of it was kept."""
    where = ", ".join(file["path"] for file in source.files()[:3]) or str(source.origin)
    if not tally.read:
        raise ValueError(f"source {source.name} ({where}) is empty: 0 documents")
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(tally.dropped.items()))
        raise ValueError(
            f"source {source.name} ({where}): all {tally.read} documents were dropped ({reasons}); "
            f"{_remedy(source, tally, min_words)}"
        )


def _remedy(source: Source, tally: Tally, min_words: int) -> str:
    """What helps against the reasons that there are."""
    advice = {
        "too short": f"lower --min-words (it is {min_words})",
        "empty text": "name the column with the text (#COLUMN)",
        "not in language": "leave --language out",
    }
    if source.kind not in ("jsonl", "parquet", "hub"):
        del advice["empty text"]
    found = [what for reason, what in advice.items() if any(name.startswith(reason) for name in tally.dropped)]
    return " or ".join([*found, "leave the source out"])
