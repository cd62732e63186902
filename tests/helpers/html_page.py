"""What a browser would make of a page."""

import re
from html.parser import HTMLParser

REFERENCES = ("src", "href", "xlink:href", "srcset", "action")
VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})


class HtmlPage(HTMLParser):
    """Text, how many of each tag, and every reference to something outside; asserts that each tag is closed by its own."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text, self.counts, self.outside, self._open = "", dict[str, int](), list[str](), list[str]()
        self.feed(source)
        self.close()
        assert self._open == [], "unclosed tags"
        self.outside += re.findall(r"url\((?!#)[^)]*\)|@import", source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag not in VOID:
            self._open.append(tag)
        self.outside += [f"{key}={value}" for key, value in attrs if key in REFERENCES and not (value or "").startswith("#")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
