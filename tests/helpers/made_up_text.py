"""Text that is the same on every machine, with what a language model learns from: Zipf's frequencies, and words after words.

The built-in text is this Python's documentation: what a small model makes of it differs from one Python to the next.
"""

import json
import random
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

SEED = 20261128
WORDS, DOCUMENTS, SENTENCES, LENGTH = 3000, 300, 60, 10
FOLLOWS = 0.6  # of the words are one of those that like to follow the word before, the others any
LIKES = (0.5, 0.25, 0.15, 0.1)


def documents() -> Iterator[str]:
    """Each of them sentences of made-up words, one after the other."""
    draw = random.Random(SEED)
    words = ["".join(draw.choices("etaoinshrdlucmfwypvbgk", range(22, 0, -1), k=draw.randint(2, 8))) for _ in range(WORDS)]
    frequencies = list(accumulate(1 / (rank + 3) for rank in range(WORDS)))
    followers = [draw.choices(range(WORDS), cum_weights=frequencies, k=len(LIKES)) for _ in range(WORDS)]
    for _ in range(DOCUMENTS):
        sentences, word = [], 0
        for _ in range(SENTENCES):
            sentence = []
            for _ in range(LENGTH):
                if draw.random() < FOLLOWS:
                    (word,) = draw.choices(followers[word], LIKES)
                else:
                    (word,) = draw.choices(range(WORDS), cum_weights=frequencies)
                sentence.append(words[word])
            sentences.append(" ".join(sentence).capitalize() + ".")
        yield " ".join(sentences)


def write_made_up(path: Path) -> None:
    """The documents as JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": str(number), "text": text}) + "\n" for number, text in enumerate(documents()))
