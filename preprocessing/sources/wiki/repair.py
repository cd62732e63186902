"""Punctuation beside what was removed: "(IPA; born 1950)" without its first part is "(born 1950)". Nothing else is touched."""

import re

from preprocessing.sources.wiki.marks import GAP, NOTE

_LOOSE = "\x03"  # a gap with a space on one side at least
_G = f"[{GAP}{_LOOSE}]"
_LONGEST = 40  # so many characters of punctuation beside a gap are looked at: a long row of commas takes no long time
_BEFORE = f"[ ,;:/–—-]{{0,{_LONGEST}}}"
_BEHIND = f"[ ,;:/–—{GAP}{_LOOSE}-]{{0,{_LONGEST}}}"
_SPACES = re.compile("[ \t\u00a0]+")
_RUN = re.compile(f" ?{_G}[ {GAP}{_LOOSE}]*")
_EMPTY = re.compile(
    rf" ?(?:\({_BEFORE}{_G}{_BEHIND}\)|\[{_BEFORE}{_G}{_BEHIND}\]|（{_BEFORE}{_G}{_BEHIND}）|[\"“„«‘]{_G}[\"”“»’])"
)
_RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (rf"([(\[（]){_BEFORE}{_G}{_BEHIND}", r"\1"),  # ( , born
        (rf"([,;:])(?: ?{_G} ?[,;:]){{1,{_LONGEST}}}(?=\s|{_G}|$)", r"\1"),  # particularly , , and
        # The first word was a template's: before what follows, be it the full stop, is looked at for itself.
        (rf"^[{GAP}{_LOOSE} ]*{_G}[{GAP}{_LOOSE} ,;:]*(?:(?:\.|[–—-]{{1,3}})(?=\s|{_G}|$))?", ""),
        (rf"(?:[,;:]? ?{_G} ?){{1,{_LONGEST}}}(?=[.](?:\s|{_G}|$))", ""),
        (rf"{_G} ?(?=[,;:](?:\s|{_G}|$)|[)\]])", ""),
        (_LOOSE, " "),
        (GAP, ""),
    )
)
_BEFORE_CLOSING = re.compile(rf"({_BEFORE}){_G}{_BEHIND}([)\]）])")
_OPENING = {")": "(", "]": "[", "）": "（"}
_BRACKET = 400  # so far back its opening is looked for
_NESTED = 4  # brackets within brackets that become empty one after another


_NOTED = re.compile(f" ?{NOTE}[ {NOTE}{GAP}]*")
_ONLY_NOTED = re.compile(f" ?(?:\\( ?{NOTE}[ {NOTE}]*\\)|（{NOTE}+）)")
_DOUBLED = re.compile(f"([,;:]) ?{NOTE}[ {NOTE}]*(?=\\1)")
_CLOSING = frozenset(".,;:)]")


def without_notes(line: str) -> str:
    """A line without the marks of footnotes: the spaces beside them are closed; brackets that held nothing else go, and the
    first of two commas that had nothing else between them."""
    line = _ONLY_NOTED.sub("", _SPACES.sub(" ", line))
    return _NOTED.sub(_closed, _DOUBLED.sub("", line))


def _closed(run: re.Match[str]) -> str:
    if GAP in run[0]:  # whoever closes the gap looks at what stands beside it
        return run[0].replace(NOTE, "")
    if run[0].endswith(" "):
        return " "
    return " " if run[0][0] == " " and run.string[run.end() : run.end() + 1] not in _CLOSING else ""


def without_gaps(line: str) -> str:
    """A line whose gaps are closed."""
    line = _collapsed(_SPACES.sub(" ", line))
    for _ in range(_NESTED):
        emptied = _EMPTY.sub(lambda empty: _LOOSE if empty[0][0] == " " else GAP, line)
        if emptied == line:
            break
        line = _collapsed(emptied)
    line = _BEFORE_CLOSING.sub(_end_of_bracket, line)
    for pattern, replacement in _RULES:
        line = pattern.sub(replacement, line)
    return line.strip()


def _end_of_bracket(found: re.Match[str]) -> str:
    """(born 1950; GAP) is (born 1950); what closes nothing is the author's own, as in ":-)", and so is "(1950–" ."""
    before = found.string[max(0, found.start() - _BRACKET) : found.start()]
    if before.count(_OPENING[found[2]]) <= before.count(found[2]):
        return found[0]
    return (found[1] if found[1] in ("–", "—", "-") and before[-1:].isdigit() else "") + found[2]


def _collapsed(line: str) -> str:
    return _RUN.sub(lambda run: _LOOSE if " " in run[0] or _LOOSE in run[0] else GAP, line)
