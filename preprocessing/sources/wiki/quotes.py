"""Apostrophes as bold and italic, by MediaWiki's own rule (Parser::doQuotes): the marks go, the apostrophes stay."""

import re

_RUN = re.compile(r"''+")


def without_quotes(line: str) -> str:
    """A line without its marks of bold and italic.

    Runs of 2, 3 and 5 apostrophes are marks; of 4 the first is an apostrophe, of more all but five. If both bold and italic
    are left open on the line, one run of 3 is an apostrophe and a mark of 2: the one behind a word of one letter, else the
    first behind a longer word, else the first behind a space.
    """
    runs = list(_RUN.finditer(line))
    marks = [len(run[0]) for run in runs]
    marks = [3 if mark == 4 else min(mark, 5) for mark in marks]
    bold, italic = sum(mark in (3, 5) for mark in marks), sum(mark in (2, 5) for mark in marks)
    spared = _spared(line, runs, marks) if bold % 2 == italic % 2 == 1 else None
    pieces, at = [], 0
    for number, run in enumerate(runs):
        extra = len(run[0]) - marks[number] + (number == spared)
        pieces += [line[at : run.start()], "'" * extra]
        at = run.end()
    return "".join([*pieces, line[at:]])


def _spared(line: str, runs: list[re.Match[str]], marks: list[int]) -> int | None:
    """Which run of three gives an apostrophe back."""
    long_word = space = None
    for number, run in enumerate(runs):
        if marks[number] != 3:
            continue
        before = (line[runs[number - 1].end() if number else 0 : run.start()] + "'" * (len(run[0]) - 3))[-2:]
        if before.endswith(" "):
            space = number if space is None else space
        elif before.startswith(" ") and len(before) == 2:
            return number
        elif long_word is None:
            long_word = number
    return space if long_word is None else long_word
