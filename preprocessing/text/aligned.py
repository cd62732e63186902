"""Cleaning that remembers where each character came from: what `clean.paragraphs` does to a line, with a way back."""

import re
import unicodedata
from typing import NamedTuple

from preprocessing.text.clean import CONTROLS, LOOSE_JOINER

_SURROGATE = re.compile("[\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff]")
# A character with what may be composed with it: marks (M*), and the vowels and final consonants of Hangul.
_HANGUL_TAIL = range(0x1161, 0x1200)


class Aligned(NamedTuple):
    """Cleaned text. Character i of it stands for characters [starts[i], ends[i]) of the original."""

    text: str
    starts: list[int]
    ends: list[int]

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Where characters [start, end) of the cleaned text, at least one, stand in the original."""
        return self.starts[start], self.ends[end - 1]


def aligned(text: str) -> Aligned:
    """The text as the tokenizer's training text was: NFC, surrogates joined or replaced, controls and what shows nothing
    dropped. Every kind of white space becomes one " "; runs of it stay, because the tokenizer makes one of them anyway.

    Joined by single spaces, its words are those of `clean.paragraphs` (which also leaves out lines without a letter).
    """
    if text.isascii() and text.isprintable():
        return Aligned(text, list(range(len(text))), list(range(1, len(text) + 1)))
    pieces = _composed([(c, i, i + 1) for i, c in enumerate(text)])
    if _SURROGATE.search(text):
        pieces = _composed(_joined_surrogates(text))
    pieces = [piece for piece in pieces if ord(piece[0]) not in CONTROLS]
    shown = "".join(character for character, _, _ in pieces)
    loose = {i for found in LOOSE_JOINER.finditer(shown) for i in range(*found.span())}
    kept = [(" " if c.isspace() else c, start, end) for i, (c, start, end) in enumerate(pieces) if i not in loose]
    return Aligned("".join(c for c, _, _ in kept), [start for _, start, _ in kept], [end for _, _, end in kept])


Piece = tuple[str, int, int]  # a character, and which of the original it stands for


def _joined_surrogates(text: str) -> list[Piece]:
    pieces, here = [], 0
    for found in _SURROGATE.finditer(text):
        pieces += [(text[i], i, i + 1) for i in range(here, found.start())]
        whole = found[0].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        here = found.end()
        pieces.append((whole, found.start(), here))
    return [*pieces, *((text[i], i, i + 1) for i in range(here, len(text)))]


def _composed(pieces: list[Piece]) -> list[Piece]:
    """In NFC: each character is normalised together with the marks that follow it, and all of the result stands for all of
    them."""
    if unicodedata.is_normalized("NFC", "".join(c for c, _, _ in pieces)):
        return pieces
    composed: list[Piece] = []
    here = 0
    while here < len(pieces):
        there = here + 1
        while there < len(pieces) and _may_be_composed(pieces[there][0]):
            there += 1
        start, end = pieces[here][1], pieces[there - 1][2]
        before = "".join(c for c, _, _ in pieces[here:there])
        after = unicodedata.normalize("NFC", before)
        composed += pieces[here:there] if after == before else [(c, start, end) for c in after]
        here = there
    return composed


def _may_be_composed(character: str) -> bool:
    return ord(character) > 0x2FF and (unicodedata.category(character)[0] == "M" or ord(character) in _HANGUL_TAIL)
