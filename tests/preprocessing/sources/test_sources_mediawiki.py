"""MediaWiki exports: articles as clean paragraphs, whatever the cuts; what is no article is dropped, what is broken skipped."""

import bz2
import re
from collections import Counter
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from preprocessing.sources.blocks import Block
from preprocessing.sources.parse import parse_sources
from preprocessing.sources.read import Reader
from preprocessing.sources.records import Dropped, RawDocument, Record, Skipped
from preprocessing.sources.types import Slice, Source
from preprocessing.sources.wikitext import plain_text

SAMPLE = Path(__file__).resolve().parents[4] / "shared" / "data" / "wiki_xml" / "enwiki-pages-articles-sample.xml.bz2"
HEADER = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" xml:lang="en">\n  <siteinfo>\n  </siteinfo>\n'
FOOTER = "</mediawiki>\n"


def page(number: int, text: str, *, ns: int = 0, extra: str = "") -> str:
    return (
        f"  <page>\n    <title>Title {number}</title>\n    <ns>{ns}</ns>\n    <id>{number}</id>\n{extra}    <revision>\n"
        f"      <id>9</id>\n      <model>wikitext</model>\n"
        f'      <text xml:space="preserve">{escape(text)}</text>\n    </revision>\n  </page>\n'
    )


def read(source: Source, parts: int = 1, *, fresh: bool = False, limit: int = 10_000_000) -> list[Record]:
    reader = Reader([source], limit)
    records: list[Record] = []
    reached = 0
    for part in range(parts):
        reader = Reader([source], limit) if fresh else reader
        records += reader.read(Slice(source.name, 0, 0, part, parts))
        ((_, start, end),) = reader.spans
        assert start == reached
        reached = end
    return records


def export(path: Path, *pages: str, footer: str = FOOTER) -> Source:
    content = (HEADER + "".join(pages) + footer).encode()
    path.write_bytes(bz2.compress(content) if path.suffix == ".bz2" else content)
    return parse_sources([str(path)])[0]


@pytest.fixture(scope="module")
def sample() -> Source:
    if not SAMPLE.is_file():
        pytest.skip(f"no {SAMPLE}")
    return parse_sources([f"wiki={SAMPLE}"])[0]


def test_the_sample_is_clean(sample: Source) -> None:
    records = read(sample)
    counts = Counter("document" if isinstance(record, RawDocument) else record.reason for record in records)
    assert counts == {"document": 106, "redirect": 99, "not an article": 1}
    documents = [record for record in records if isinstance(record, RawDocument)]
    text = "\n".join(document.text for document in documents)
    marks = ["|", "[[", "]]", "{{", "}}", "''", "==", "__", "()", "( ", " )", "(,", "(;", "[]", "<ref", "</", "&nbsp;", "http"]
    # What the authors wrote themselves: "sm|rg}sar", "LET [] = []", "1945– )", the characters above the digits of a keyboard.
    assert {mark: text.count(mark) for mark in marks if mark in text} == {"|": 3, "()": 1, "( ": 6, " )": 6, "[]": 3}
    lines = text.split("\n")
    assert not [line for line in lines if line.startswith(("*", ":", ";", "#", "File:", "Category:", "thumb"))]
    assert not [line for line in lines if line != line.strip() or not line]
    assert len(text.split()) > 400_000
    anarchism = documents[0]
    assert (anarchism.id, anarchism.title) == ("12", "Anarchism")
    assert anarchism.text.startswith("Anarchism is a political philosophy that advocates self-governed societies based on")
    assert "\nEtymology and terminology\n" in anarchism.text
    assert "References" not in anarchism.text.split("\n")  # nothing but a template stood there


def test_the_sample_in_parts(sample: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocessing.sources.mediawiki.plain_text", lambda wikitext, *_: wikitext)  # the slow half
    whole = read(sample)
    assert len(whole) == 206
    assert read(sample, 5) == whole
    assert read(sample, 3, fresh=True) == whole


@pytest.mark.parametrize("suffix", ["", ".bz2"])
@pytest.mark.parametrize("parts", [1, 2, 5, 40])
def test_any_cut_gives_the_same_pages(tmp_path: Path, suffix: str, parts: int) -> None:
    pages = [page(i, f"Text {i} with a line.\n<page>\n&lt;page&gt;\n" + "more " * (i % 7)) for i in range(20)]
    source = export(tmp_path / f"a.xml{suffix}", *pages)
    for fresh in (False, True):
        records = read(source, parts, fresh=fresh)
        assert [record.id for record in records if isinstance(record, RawDocument)] == [str(i) for i in range(20)]
        assert len(records) == 20


@pytest.mark.parametrize("parts", [1, 6])
def test_what_is_no_article_and_what_is_broken(tmp_path: Path, parts: int) -> None:
    good = page(1, "Good.")
    pages = [
        good,
        page(2, "Talk.", ns=1),
        page(3, "x", extra='    <redirect title="Y" />\n'),
        page(4, " #REDIRECT [[Y]]"),
        page(5, "{{only a template}}"),
        page(6, "cut").replace("  </page>\n", ""),
        page(7, "broken & ").replace("&amp;", "&"),
        page(8, "x").replace("<id>8</id>", ""),
        page(9, "long " * 2000),
        page(10, ".x {}").replace("wikitext</model>", "css</model>"),
        good,
    ]
    records = read(export(tmp_path / "a.xml", *pages), parts, limit=5000)
    found = ["document" if isinstance(record, RawDocument) else record.reason for record in records]
    skipped = ["broken page", "broken page", "broken page", "too long"]
    assert found == ["document", "not an article", *["redirect"] * 2, "empty text", *skipped, "not an article", "document"]
    assert isinstance(records[5], Skipped)
    assert "no </page>" in records[5].detail
    assert records[1] == Dropped("not an article")


@pytest.mark.parametrize("parts", [1, 2, 9])
def test_a_truncated_export_is_noticed(tmp_path: Path, parts: int) -> None:
    pages = [page(i, f"Text {i}.") for i in range(9)]
    for footer, broken in (("", 0), (page(9, "x")[:-20], 1)):
        records = read(export(tmp_path / "a.xml", *pages, footer=footer), parts, fresh=True)
        reasons = [record.reason for record in records if isinstance(record, Skipped)]
        assert reasons == ["broken page"] * broken + ["truncated file"]
    export(tmp_path / "a.xml.bz2", *(page(i, " ".join(str(j * i * i) for j in range(9000))) for i in range(40)))
    content = (tmp_path / "a.xml.bz2").read_bytes()
    (tmp_path / "a.xml.bz2").write_bytes(content[: len(content) * 3 // 4])
    records = read(parse_sources([str(tmp_path / "a.xml.bz2")])[0], parts)
    assert [record.reason for record in records if isinstance(record, Skipped)] == ["truncated file"]
    assert len(records) > 10


def test_other_xml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text('<?xml version="1.0"?>\n<rss>\n</rss>\n')
    with pytest.raises(ValueError, match=r"a\.xml: no MediaWiki export: it starts with b'<rss>'"):
        read(parse_sources([str(tmp_path / "a.xml")])[0])


@pytest.mark.parametrize(
    ("wikitext", "plain"),
    [
        ("'''Bold''' and ''it'' [[link]] [[a b|text]]s [http://x y z].", "Bold and it link texts y z."),
        ("A[[File:x.jpg|thumb|A [[nested]] caption]]B [[Category:C]][[fr:Autre]] [[:Category:D]]", "AB Category:D"),
        ("A<ref name=x>{{cite|y}}</ref> b<ref name=x /> c<!-- d --> e", "A b c e"),
        ("{| class=x\n|-\n| a || b\n|}\nText.", "Text."),
        ("{{Infobox|a=[[b]]\n|c={{d}}}}\nText ({{IPA|x}}; born {{x}}) a ({{x}}) b.", "Text (born) a b."),
        ("== One ==\ntext\n== Two ==\n{{x}}\n=== Three ===\n== Four ==\n=== Five ===\nmore", "One\ntext\nFour\nFive\nmore"),
        ("* item one\n* item ''two''\n:: indented\n# third", "item one\nitem two\nindented\nthird"),
        ("__NOTOC__\nx&nbsp;y &amp; z<math>a|b</math><gallery>\nFile:a|b\n</gallery>", "x y & z"),
        ("about {{convert|5|km|mi}} of {{lang|fr|texte ''x''}} {{nowrap|a b}}", "about 5 km of texte x a b"),
        ("<div>one</div><blockquote>two</blockquote>a<br/>b H<sub>2</sub>O", "one\ntwo\na\nb H2O"),
        ("''' unbalanced\nnext ''line", "unbalanced\nnext line"),
    ],
)
def test_markup_becomes_prose(wikitext: str, plain: str) -> None:
    assert plain_text(wikitext) == plain


NAMESPACES = (
    '<siteinfo><namespaces><namespace key="1" case="first-letter">Parolo</namespace><namespace key="0" case="first-letter" />'
    '<namespace case="first-letter" key="6">Bildo</namespace></namespaces></siteinfo>'
)


def in_layout(layout: str, numbers: range) -> bytes:
    """An export of pages (the odd ones with text that looks like the end of a page) as other programs write it."""
    pages = [page(i, f"Text {i} [[Bildo:a b|c]]ends.\n</page>\n<page>\n" * (1 + i % 3)) for i in numbers]
    whole = HEADER.replace("<siteinfo>\n  </siteinfo>", NAMESPACES) + "".join(pages) + FOOTER
    if layout == "one line":
        whole = re.sub(r">\s+<", "><", whole).replace(FOOTER, FOOTER.strip())
    elif layout == "tags with attributes":
        whole = whole.replace("<page>", '<page xmlns="http://www.mediawiki.org/xml/export-0.10/" id="x">')
    elif layout == "two pages a line":
        whole = re.sub(r"</page>\s+<page>(?=\s+<title>Title \d*[13579]<)", "</page><page>", whole)
    elif layout == "without ns":
        whole = re.sub(r"\s*<ns>0</ns>", "", whole).replace("<title>Title 4<", "<title>Parolo:Title 4<")
    return ("\ufeff" * (layout == "byte order mark") + whole).encode()


@pytest.mark.parametrize("layout", ["one line", "tags with attributes", "two pages a line", "byte order mark"])
@pytest.mark.parametrize("suffix", ["", ".bz2"])
def test_pages_are_read_in_any_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, suffix: str) -> None:
    content = in_layout(layout, range(12))
    path = tmp_path / f"a.xml{suffix}"
    path.write_bytes(bz2.compress(content) if suffix else content)
    source = parse_sources([str(path)])[0]
    whole = read(source)
    assert [record.text for record in whole if isinstance(record, RawDocument)][1].splitlines()[0] == "Text 1 ends."
    assert [record.id for record in whole if isinstance(record, RawDocument)] == [str(i) for i in range(12)]
    for parts, block_bytes in ((3, 1 << 20), (5, 64), (29, 7)):  # blocks shorter than </page>
        monkeypatch.setattr("preprocessing.sources.blocks.BLOCK_BYTES", block_bytes)
        monkeypatch.setattr("preprocessing.sources.blocks.CHUNK_BYTES", block_bytes)
        monkeypatch.setattr("preprocessing.sources.mediawiki.blocks_of", lambda file, name: iter([Block(content[:4000], 0)]))
        for fresh in (False, True):
            texts = [record.text for record in read(source, parts, fresh=fresh) if isinstance(record, RawDocument)]
            assert texts == [record.text for record in whole if isinstance(record, RawDocument)]


def test_an_old_export_without_namespaces_of_pages_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(in_layout("without ns", range(6)))
    records = read(parse_sources([str(tmp_path / "a.xml")])[0])
    assert [record.id for record in records if isinstance(record, RawDocument)] == ["0", "1", "2", "3", "5"]
    assert records[4] == Dropped("not an article")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('<?xml version="1.0" encoding="ISO-8859-1"?>\n<mediawiki>\n</mediawiki>', "XML in ISO-8859-1, expected UTF-8"),
        ("<mw:mediawiki xmlns:mw='x'><mw:page></mw:page></mw:mediawiki>", "starts with b.<mw:mediawiki"),
        ("<!-- a\nnote -->\n<feed><doc></doc></feed>", "starts with b'<feed>"),
    ],
)
def test_what_is_no_export_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.xml").write_text(content)
    with pytest.raises(ValueError, match=message):
        read(parse_sources([str(tmp_path / "a.xml")])[0])


def test_a_page_that_would_take_too_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocessing.sources.wiki.scan.MOST_MARKS", 50)
    records = read(export(tmp_path / "a.xml", page(1, "a"), page(2, "{{x}} " * 60), page(3, "c")))
    assert [type(record) for record in records] == [RawDocument, Skipped, RawDocument]
    assert isinstance(records[1], Skipped)
    assert records[1].reason == "page given up"
    assert records[1].detail.startswith("Title 2: more than 50 marks")
