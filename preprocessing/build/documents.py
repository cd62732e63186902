"""From a source's records to the documents that a corpus keeps, each drop and skip counted by reason."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from preprocessing.build.settings import Settings
from preprocessing.sources.records import Dropped, RawDocument, Skipped
from preprocessing.text.clean import clean, count_words, digest
from preprocessing.text.language import detect

COUNTERS = ("dropped", "dropped_lines", "skipped", "dropped_markup", "unknown_templates")
EXAMPLES = 20  # skipped records that are named; the others are counted


class KeptDocument(NamedTuple):
    """A document that passed the filters. `digest`: of its text, 16 bytes; `draw`: a seeded hash of that, 64 bits."""

    raw: RawDocument
    paragraphs: list[str]
    words: int
    digest: bytes
    draw: int


@dataclass
class Tally:
    """What happened to records: `read` counts documents, kept and dropped; `skipped` counts what is no document.

    Of the documents that were kept: `dropped_lines` by reason, `dropped_markup` by kind, `unknown_templates` by name.
    """

    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    dropped_lines: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    dropped_markup: Counter[str] = field(default_factory=Counter)
    unknown_templates: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def skip(self, record: Skipped) -> None:
        """Count a record that is no document, and name it if it is among the first."""
        self.skipped[record.reason] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{record.where}: {record.reason}: {record.detail}".removesuffix(": "))

    def add(self, other: Self) -> None:
        """Count another tally's records, too."""
        self.read += other.read
        for name in COUNTERS:
            getattr(self, name).update(getattr(other, name))
        self.examples = (self.examples + other.examples)[:EXAMPLES]

    def as_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The inverse of `as_json`; of a tally from before a counter was there, too."""
        counters = {name: Counter(fields.get(name, {})) for name in COUNTERS}
        return cls(read=fields["read"], examples=list(fields["examples"]), **counters)


def check_skipped(tally: Tally, max_bad: int, share: float = 1.0) -> None:
    """ValueError if more records than --max-bad were skipped. `share`: of the input, as far as the tally has seen it."""
    count = tally.skipped.total()
    if count > max_bad:
        more = f" (and {count - 1} more)" if count > 1 else ""
        seen = "" if share == 1 else f"; {share:.2%} of the input was looked at"
        accepted = count if share == 1 else math.ceil(1.2 * count / share)  # a fifth more than is likely
        raise ValueError(
            f"{tally.examples[0]}{more}{seen}; mend the source, or accept so many bad records: --max-bad {accepted} "
            f"(it is {max_bad})"
        )


def kept_documents(
    records: Iterable[RawDocument | Skipped | Dropped], settings: Settings, max_bad: int, tally: Tally
) -> Iterator[KeptDocument]:
    """Clean documents and drop the short ones and those of another language. ValueError: too many bad records."""
    key = f"held out {settings.seed}".encode()
    records = iter(records)
    for record in records:
        if isinstance(record, Skipped):
            tally.skip(record)
            if tally.skipped.total() > max_bad:
                for other in records:  # how many there are, so that the advice need not be given again
                    if isinstance(other, Skipped):
                        tally.skip(other)
                check_skipped(tally, max_bad)
            continue
        tally.read += 1
        if isinstance(record, Dropped):
            tally.dropped[record.reason] += 1
            continue
        cleaned = clean(record.text)
        words = count_words(cleaned.paragraphs)
        if reason := _unwanted(cleaned.paragraphs, words, settings):
            tally.dropped[reason] += 1
            continue
        tally.dropped_lines.update(cleaned.dropped_lines)
        if record.removed is not None:
            tally.dropped_lines.update(record.removed.lines)
            tally.dropped_markup.update(record.removed.markup)
            tally.unknown_templates.update(record.removed.templates)
        text = digest(cleaned.paragraphs)
        draw = int.from_bytes(hashlib.blake2b(text, digest_size=8, key=key).digest())
        yield KeptDocument(record, cleaned.paragraphs, words, text, draw)


def _unwanted(paragraphs: Sequence[str], words: int, settings: Settings) -> str | None:
    if not paragraphs or words < settings.min_words:
        return "too short"
    if settings.language and detect("\n".join(paragraphs[:20])) != settings.language:
        return f"not in language {settings.language}"
    return None
