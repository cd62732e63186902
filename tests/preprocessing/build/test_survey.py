"""The survey before a build: what is held out, and the lines that the tokenizer is trained on."""

from pathlib import Path
from typing import Any, ClassVar

import pytest

from preprocessing.build import survey as survey_module
from preprocessing.build.plan import Gates, cut
from preprocessing.build.settings import PlannedSettings, Settings
from preprocessing.build.survey import heldout_limit, survey
from preprocessing.sources.parse import parse_sources
from preprocessing.text.clean import clean
from preprocessing.text.tokenizer import TextSample
from tests.helpers.small_corpora import build_small, titles, write_rows

Rows = list[dict[str, Any]]


@pytest.mark.parametrize(
    ("draws", "fraction", "whole", "limit"),
    [
        ([], 0.5, True, (1 << 63) - 1),
        ([5], 2**-60, True, 15),  # one document is not held out from itself, unless it is that low
        ([500, 600], 2**-60, True, 500),  # none is low enough: the lowest
        ([500, 600], 2**-60, False, 500),
        ([3, 4, 5], 2**-60, True, 4),  # all are: the highest stays
        ([3, 4, 5], 2**-60, False, 15),
        ([3, 400, 5], 2**-60, True, 15),
    ],
)
def test_held_out_limits_by_hand(draws: list[int], fraction: float, whole: bool, limit: int) -> None:
    assert heldout_limit(draws, fraction, whole) == limit


def test_the_tokenizer_never_sees_held_out_text(topics: Rows, tmp_path: Path) -> None:
    marked = [{**row, "text": f"{row['text']}\nThis is mark{i}."} for i, row in enumerate(topics)]
    path = write_rows(tmp_path / "a.jsonl", marked)
    corpus = build_small(tmp_path / "out", str(path))
    sources, settings = parse_sources([str(path)]), PlannedSettings(**corpus.manifest.settings)
    found = survey(sources, cut(sources, settings.slice_mb), settings, Gates(), 1, lambda result: None)
    marks = {row["title"]: f"This is mark{i}." for i, row in enumerate(topics)}
    assert {marks[title] for title in titles(corpus, "train")} <= set(found.sample)
    assert {marks[title] for title in titles(corpus, "heldout")}.isdisjoint(found.sample)


def test_a_part_of_a_source_is_surveyed_evenly(topics: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long source every n-th slice, and its lines as often as those of a short one that is surveyed whole."""
    long = [{**row, "text": f"{row['text']}\nlong {n} {i}."} for n in range(6) for i, row in enumerate(topics)]
    paths = [write_rows(tmp_path / "long.jsonl", long), write_rows(tmp_path / "short.jsonl", topics)]
    sources = parse_sources(list(map(str, paths)))
    settings = Settings(slice_mb=0.02, sample_characters=60_000).check(sources)
    cuts = cut(sources, settings.slice_mb)
    monkeypatch.setattr(survey_module, "SURVEY_MB", 0.2)
    tasks, fractions = survey_module._tasks(sources, cuts, settings)
    parts = [task.slice.part for task in tasks if task.slice.source == "long"]
    assert len(parts) == 10
    assert parts[-1] > max(parts) * 0.9
    assert max(parts) > 0.8 * max(one.part for one in cuts if one.source == "long")
    assert fractions["short"] == 1
    assert fractions["long"] == 10 / sum(one.source == "long" for one in cuts)
    monkeypatch.setattr(survey_module, "TextSample", Offers)
    Offers.fractions.clear()
    survey(sources, cuts, settings, Gates(), 1, lambda result: None)
    assert Offers.fractions == {"long": {fractions["long"]}, "short": {1.0}}


class Offers(TextSample):
    """A sample that notes which fraction of a source it is told is offered."""

    fractions: ClassVar[dict[str, set[float]]] = {}

    def add(self, paragraph: str, tag: tuple[str, int], fraction: float = 1.0) -> None:
        self.fractions.setdefault(tag[0], set()).add(fraction)
        super().add(paragraph, tag, fraction)


def test_held_out_text_is_hidden_wherever_it_stands(topics: Rows, tmp_path: Path) -> None:
    """Of a short source the lowest draw is held out; the tokenizer does not see it in a long one either."""
    paths = [write_rows(tmp_path / "a.jsonl", topics[:3]), write_rows(tmp_path / "b.jsonl", topics)]
    sources = parse_sources(list(map(str, paths)))
    settings = Settings(heldout_fraction=0.02).check(sources)
    found = survey(sources, cut(sources, 8.0), settings, Gates(), 1, lambda result: None)
    seen = [any(p in found.sample for p in clean(row["text"]).paragraphs if len(p) > 60) for row in topics[:3]]
    assert sorted(seen) == [False, True, True]
