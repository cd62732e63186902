"""The audit's page stands alone, and shows what was found."""

import re
from pathlib import Path

from preprocessing.audit.page import page
from tests.helpers.audited_corpora import HOSTILE, another_source_text, look
from tests.helpers.html_page import HtmlPage


def test_the_page_stands_alone_and_shows_every_check(sound: Path) -> None:
    another_source_text(sound)
    found = look(sound)
    html = page(found)
    tags = HtmlPage(html)
    assert tags.outside == []
    assert "script" not in tags.counts
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
