"""Text to token ids, each with the characters of the ORIGINAL text that it stands for.

The tokenizer says which characters of what it was given a piece comes from; `preprocessing.text.aligned` says which ones of the
original those are. Three things it says are made usable here: a piece's leading space is no part of a word; of a character
that the folding expands (½ is 1⁄2, the ligature ﬁ is fi) all but the last piece have no characters, and get the expanded one;
a lone "▁" has none, and stands where the next word begins.

Shapes: N tokens.
"""

from typing import NamedTuple

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from preprocessing.text.aligned import aligned

SPACE = "▁"


class Tokens(NamedTuple):
    """Token i stands for characters [starts[i], ends[i]) of the original text; none where both are the same."""

    ids_N: NDArray[np.int64]
    starts_N: NDArray[np.int64]
    ends_N: NDArray[np.int64]


def tokenize(tokenizer: sentencepiece.SentencePieceProcessor, text: str) -> Tokens:
    """The ids that the same text has in a corpus, and their characters."""
    clean = aligned(text)
    encoded = tokenizer.encode(clean.text, return_type="offset_mapping")
    spans = [_characters(clean.text, piece, *span) for piece, span in zip(encoded["pieces"], encoded["offsets"], strict=True)]
    originals = [
        clean.original(start, end) if start < end else _between(clean.starts, start, len(text)) for start, end in spans
    ]
    starts, ends = zip(*originals, strict=True) if originals else ((), ())
    return Tokens(*(np.array(numbers, dtype=np.int64) for numbers in (encoded["ids"], starts, ends)))


def _characters(text: str, piece: str, start: int, end: int) -> tuple[int, int]:
    """Of the cleaned text, without the white space before and after; of a piece within an expanded character, that one."""
    if start == end and piece != SPACE and start < len(text):
        end = start + 1
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _between(starts: list[int], at: int, length: int) -> tuple[int, int]:
    place = starts[at] if at < len(starts) else length
    return place, place
