"""What a corpus lost is counted: from a reader's account through the manifest to the audit."""

from pathlib import Path
from xml.sax.saxutils import escape

from preprocessing.audit.stream import left_out_figures, left_out_lines
from preprocessing.build.documents import Tally
from preprocessing.build.ledger import most_frequent
from tests.helpers.small_corpora import build_small

WORDS = "The old mill by the river was built of grey stone and turned for many years before the flood came in spring"


def dump(path: Path, texts: list[str]) -> Path:
    pages = "".join(
        f"<page><title>T{i}</title><ns>0</ns><id>{i}</id><revision><text>{escape(text)}</text></revision></page>"
        for i, text in enumerate(texts)
    )
    path.write_text(f"<mediawiki><siteinfo/>{pages}</mediawiki>")
    return path


def test_what_a_dump_loses_stands_in_the_manifest_and_the_audit(tmp_path: Path) -> None:
    prose = [
        f"{WORDS} {i} {'again and ' * i}it was so. {{{{odd box|x}}}} {{{{Rare one}}}}\n{{|\n|cell\n|}}\n1999" for i in range(30)
    ]
    path = dump(tmp_path / "a.xml", [*prose, "#REDIRECT [[T1]]", "too few words {{odd box}}", "{{odd box}}"])
    manifest = build_small(tmp_path / "corpus", f"wiki={path}", vocab_size=50, min_words=10).manifest
    (source,) = manifest.sources
    assert source.dropped == {"redirect": 1, "too short": 1, "empty text": 1}
    assert source.unknown_templates == {"odd box": 30, "rare one": 30}  # of the documents that were kept
    assert source.dropped_markup == {"unknown template": 60, "table": 30}
    assert source.dropped_lines == {"no letter": 30}
    lines = left_out_lines(left_out_figures(manifest))
    assert lines == [
        "wiki, documents left out: 1 empty text, 1 redirect, 1 too short",
        "wiki, lines left out: 30 no letter",
        "wiki, markup left out: 60 unknown template, 30 table",
        "wiki, unknown templates left out: 30 odd box, 30 rare one",
    ]


def test_ten_templates_are_shown_and_the_most_frequent_kept() -> None:
    counts = {f"t{i}": i % 5 for i in range(20)}
    assert list(most_frequent(counts, 5)) == ["t14", "t19", "t4", "t9", "t13"]


def test_a_tally_survives_its_way_through_json() -> None:
    tally = Tally(read=2)
    tally.unknown_templates["x"] += 3
    tally.dropped_markup["table"] += 1
    again = Tally.from_json(tally.as_json())
    assert again == tally
    again.add(tally)
    assert again.unknown_templates == {"x": 6}
