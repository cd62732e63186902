"""What is left of markup that is not balanced, and of names that no table knows."""

import re

from preprocessing.sources.wiki.marks import GAP, SEAM

_ROW = re.compile(r"^[^\S\n]*(?:[|!]|\{\|).*$", re.MULTILINE)
_PARAMETER = re.compile(r"^[^\S\n]*\|[^\n=]{0,60}=.*$", re.MULTILINE)
NAMES = {"{{": "template", "[[": "link", "{|": "table", "-{": "variant"}
_LONGEST_NAME = 80


def counted_name(name: str) -> str:
    """What an unknown template is counted as: its name, or that of the parser function, on one line."""
    if name.startswith("#"):
        return name.partition(":")[0] + ":"
    return name if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME] + "…"


def ends_with_digit(pieces: list[str]) -> bool:
    """Whether the text so far does."""
    return bool(pieces) and pieces[-1][-1:].isdigit()


def closes_single(text: str, at: int, left: str, right: str) -> bool:
    """Whether marks that close nothing belong to single ones before them on the line: an author's {a: {b: 1}}, a[b[0]]."""
    begin = max(0, at - 200)
    before = text[max(begin, text.rfind("\n", begin, at) + 1) : at]
    before = before.replace(left * 2, "")
    return before.count(left) - before.count(right) >= 2


def unclosed(kind: str, texts: list[str]) -> str:
    """The text of something that was never closed, without its marks."""
    if kind == "-{":
        return "-{" + "|".join(texts)
    if kind == "{|":
        return SEAM + _ROW.sub(GAP, "|" + texts[0])
    if kind == "[[":
        if len(texts) > 1 and ":" in texts[0] and "." in texts[0]:
            return GAP + texts[-1]  # a file's name and options; the caption, and what may follow it, is text
        return SEAM + f"{SEAM} ".join(text for text in texts if text.strip())
    first, *others = texts
    if others and "\n" not in first.strip():
        first = GAP  # the template's name
    rest = _PARAMETER.sub(GAP, "".join("|" + text for text in others)) if others else ""
    return SEAM + first + rest.replace("|", f"{SEAM} ")
