"""Our sentence rules beside pysbd and blingfire on real text: who agrees with whom, and how fast.

    python -m benchmarks.sentences [FILES] [--megabytes 1] [--lower] [--disagreements N] [--seed 0]

FILES are *.jsonl or *.jsonl.gz with a `text` column; without any, the built-in corpus. Boundaries inside paragraphs are
compared, the end of a paragraph is none. There is no gold standard: `majority` holds the boundaries that at least two of
the three give, which flatters two that err alike. With --lower the splitters read the text in lower case, and are measured
against the majority on the text as it was. Needs benchmarks/requirements.txt.
"""

import argparse
import gzip
import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from preprocessing.sources.builtin import builtin_sources, read_builtin
from preprocessing.text.clean import clean
from preprocessing.text.sentences import split_sentences

Splitter = Callable[[str], list[str]]
Boundaries = set[tuple[int, int]]
"""(number of the paragraph, characters other than white space before the boundary)"""


def segmenters() -> dict[str, Splitter]:
    """The splitters by name. ModuleNotFoundError: benchmarks/requirements.txt is not installed."""
    import blingfire
    import pysbd

    english = pysbd.Segmenter(language="en", clean=False)
    return {
        "ours": split_sentences,
        "pysbd": english.segment,
        "blingfire": lambda paragraph: blingfire.text_to_sentences(paragraph).split("\n"),
    }


def boundaries(sentences: list[str]) -> set[int]:
    """How many characters other than white space stand before each boundary: the same however a library trims."""
    sizes = (len("".join(sentence.split())) for sentence in sentences)
    return set(list(itertools.accumulate(sizes))[:-1])


def score(found: Boundaries, expected: Boundaries) -> tuple[float, float, float]:
    """Precision, recall and F1; 1 where there is nothing to find."""
    right = len(found & expected)
    precision = right / len(found) if found else 1.0
    recall = right / len(expected) if expected else 1.0
    return precision, recall, 2 * precision * recall / (precision + recall) if right else 0.0


def read_paragraphs(files: list[Path], megabytes: float, seed: int) -> list[str]:
    """Clean paragraphs of about so many MB, from documents in random order."""
    documents = list(_texts(files))
    random.Random(seed).shuffle(documents)
    found: list[str] = []
    left = megabytes * 1e6 / max(1, len(files))
    for document in documents:
        kept = clean(document).paragraphs
        start = random.Random(f"{seed}{document[:100]}").randrange(len(kept)) if kept else 0
        for paragraph in kept[start : start + 200]:  # from the middle of a book, and not the whole of it
            found.append(paragraph)
            left -= len(paragraph.encode()) / max(1, len(files))
        if left <= 0:
            break
    return found


def _texts(files: list[Path]) -> Iterator[str]:
    if not files:
        yield from (document.text for source in builtin_sources() for document in read_builtin(source))
    for path in files:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as file:
            yield from (json.loads(line)["text"] for line in file if not line.isspace())


def measure(paragraphs: list[str], splitters: dict[str, Splitter]) -> tuple[dict[str, Boundaries], dict[str, float]]:
    """Each splitter's boundaries, and its MB/s; a paragraph whose characters a library changes counts for none."""
    split: dict[str, list[list[str]]] = {}
    speed_mb_s = {}
    size_mb = sum(len(paragraph.encode()) for paragraph in paragraphs) / 1e6
    for name, splitter in splitters.items():
        started = time.perf_counter()
        split[name] = [splitter(paragraph) for paragraph in paragraphs]
        speed_mb_s[name] = size_mb / (time.perf_counter() - started)
    found: dict[str, Boundaries] = {name: set() for name in splitters}
    skipped = 0
    for i, paragraph in enumerate(paragraphs):
        characters = "".join(paragraph.split())
        if any("".join("".join(sentences[i]).split()) != characters for sentences in split.values()):
            skipped += 1
            continue
        for name, sentences in split.items():
            found[name] |= {(i, at) for at in boundaries(sentences[i])}
    print(f"{len(paragraphs)} paragraphs, {size_mb:.2f} MB; {skipped} left out: a library changed their characters\n")
    return found, speed_mb_s


def majority(found: dict[str, Boundaries]) -> Boundaries:
    """The boundaries that more than half of the splitters give."""
    return {at for at in set().union(*found.values()) if 2 * sum(at in one for one in found.values()) > len(found)}


def print_table(found: dict[str, Boundaries], speed_mb_s: dict[str, float], expected: Boundaries) -> None:
    """A row a splitter: its speed, its score against what is expected, and F1 with each other."""
    names = list(found)
    print(f"| | boundaries | MB/s | precision | recall | F1 (majority) | {' | '.join(f'F1 ({name})' for name in names)} |")
    print("|---" * (6 + len(names)) + "|")
    for name in names:
        scores = [f"{value:.4f}" for value in score(found[name], expected)]
        pairs = ["" if name == other else f"{score(found[name], found[other])[2]:.4f}" for other in names]
        print(f"| {name} | {len(found[name])} | {speed_mb_s[name]:.3g} | {' | '.join([*scores, *pairs])} |")


def print_disagreements(paragraphs: list[str], found: dict[str, Boundaries], n: int, seed: int) -> None:
    """`n` random boundaries that ours has alone or lacks alone or that the two libraries dispute."""
    every: Boundaries = set().union(*found.values())
    disputed = sorted(at for at in every if not all(at in one for one in found.values()))
    for number, (i, at) in enumerate(random.Random(seed).sample(disputed, min(n, len(disputed))), 1):
        names = "+".join(name for name, one in found.items() if (i, at) in one)
        before, after = _around(paragraphs[i], at)
        print(f"{number:3} {names:16} …{before[-70:]} ‖ {after[:50]}…")


def _around(paragraph: str, characters: int) -> tuple[str, str]:
    """The paragraph cut after so many characters other than white space."""
    seen = 0
    for position, character in enumerate(paragraph):
        seen += not character.isspace()
        if seen == characters:
            return paragraph[: position + 1], paragraph[position + 1 :].strip()
    raise AssertionError("the boundary lies behind the paragraph's end")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Print the table; return what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sentences", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="*.jsonl[.gz] with a text column; none: the built-in corpus")
    parser.add_argument("--megabytes", type=float, default=1.0, help="how much text (pysbd is slow)")
    parser.add_argument("--lower", action="store_true", help="split the text in lower case")
    parser.add_argument("--disagreements", type=int, default=0, metavar="N", help="print N random ones")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    paragraphs = read_paragraphs(options.files, options.megabytes, options.seed)
    found, speed_mb_s = measure(paragraphs, segmenters())
    expected = majority(found)
    if options.lower:
        paragraphs = [paragraph.lower() for paragraph in paragraphs]
        found, speed_mb_s = measure(paragraphs, segmenters())
    print_table(found, speed_mb_s, expected)
    print()
    print_disagreements(paragraphs, found, options.disagreements, options.seed)
    return {"found": found, "speed_mb_s": speed_mb_s}


if __name__ == "__main__":
    main()
