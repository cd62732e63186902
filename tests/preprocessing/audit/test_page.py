"""The audit's page stands alone, and shows what was found."""

import re
from html.parser import HTMLParser
from pathlib import Path

from preprocessing.audit.page import page
from tests.helpers.audited_corpora import HOSTILE, another_source_text, look


class Tags(HTMLParser):
    """Every tag is closed by its own; what an element refers to outside is listed."""

    VOID = ("meta", "br", "link", "img", "input", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.outside: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.outside += [str(v) for k, v in attrs if k in ("src", "href", "xlink:href") and not str(v).startswith("#")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    tags.close()
    assert tags.open == []
    return tags


def test_the_page_stands_alone_and_shows_every_check(sound: Path) -> None:
    another_source_text(sound)
    found = look(sound)
    html = page(found)
    tags = parsed(html)
    assert tags.outside == []
    assert "script" not in tags.seen
    assert not re.search(r"url\((?!#)|@import", html)
    for check in found.checks:
        assert check.name in tags.text
        assert check.found in tags.text
        assert check.expected in tags.text
    assert HOSTILE in tags.text
    assert html.count("<svg") == 6
    assert "mathdefault" not in html
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert "Quite another text" in tags.text
    assert "its text gives" in tags.text
