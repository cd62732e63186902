"""RUN/guesses.json: held-out sentences, a word or two of each hidden, what the model puts there, and what stood there.

Made after the training, in one process, from the newest checkpoint: the model is whole there under every ZeRO stage, no rank
waits for another, and a run that was killed before it was made gets it from the next start.
"""

import random
from dataclasses import asdict
from pathlib import Path

import numpy as np
import sentencepiece

from pipeline.run.trained import load_run
from pipeline.train.fill_mask import MASK, guesses
from preprocessing.base.json_file import write_object
from preprocessing.corpus.reader import CLS_ID, FIRST_ORDINARY_ID, MASK_ID, SEP_ID, Corpus
from preprocessing.text import tokenizer
from preprocessing.text.tokenizer import WORD_START

GUESSES = "guesses.json"
SENTENCES, MASKS = 10, 2
SHORTEST, LONGEST = 8, 40  # tokens of a sentence that is worth reading and quick to read
SEED = 20220207  # not a run's: all runs on a corpus are shown the same sentences
TRIES = 2_000


def write_guesses(run_dir: Path) -> None:
    """Write RUN/guesses.json, unless it is there. ValueError or OSError without a checkpoint, or without the run's corpus."""
    path = run_dir / GUESSES
    if path.exists():
        return
    config, corpus, model, step = load_run(run_dir, verify="sizes")  # the training has read it all
    pieces = tokenizer.load(corpus.tokenizer_path)
    sentences = []
    for tokens, hidden in chosen_sentences(corpus, pieces, config.data.seq_len - 2):
        shown = [MASK_ID if place in hidden else token for place, token in enumerate(tokens)]
        best = guesses(model, pieces, [CLS_ID, *shown, SEP_ID])
        masks = [
            {"truth": pieces.id_to_piece(tokens[place]), "guesses": [asdict(guess) for guess in of_mask]}
            for place, of_mask in zip(hidden, best, strict=True)
        ]
        sentences.append({"text": _text(pieces, tokens, hidden), "masks": masks})
    write_object(path, {"step": step, "sentences": sentences})


def chosen_sentences(
    corpus: Corpus, pieces: sentencepiece.SentencePieceProcessor, longest: int, seed: int = SEED
) -> list[tuple[list[int], list[int]]]:
    """Up to SENTENCES different held-out sentences, as (tokens, places of the words to hide, ascending).

    Those of SHORTEST to LONGEST tokens (and at most `longest`), of known pieces alone, with a word that is one piece: such a
    word can be read, so it is hidden; never two that touch. Nothing but the drawn documents is read.
    """
    draw, shards = random.Random(seed), corpus.shards("heldout")
    ends = np.cumsum([len(shard) for shard in shards])
    found: dict[tuple[int, ...], list[int]] = {}
    for _ in range(TRIES):
        if len(found) == SENTENCES:
            break
        document = draw.randrange(int(ends[-1]))
        number = int(np.searchsorted(ends, document, side="right"))
        shard, document = shards[number], document - int(ends[number]) + len(shards[number])
        sentence_ends = [shard.document_start(document), *shard.sentence_ends(document).tolist()]
        at = draw.randrange(len(sentence_ends) - 1)
        tokens = tuple(shard.tokens[sentence_ends[at] : sentence_ends[at + 1]].tolist())
        words = _words(pieces, tokens)
        if SHORTEST <= len(tokens) <= min(LONGEST, longest) and min(tokens) >= FIRST_ORDINARY_ID and words:
            first, *others = draw.sample(words, len(words))
            apart = [place for place in others if abs(place - first) > 1]
            found.setdefault(tokens, sorted([first, *apart[: MASKS - 1]]))
    return [(list(tokens), hidden) for tokens, hidden in found.items()]


def _words(pieces: sentencepiece.SentencePieceProcessor, tokens: tuple[int, ...]) -> list[int]:
    """Where a piece is a word of letters by itself: the next one begins another, or is punctuation."""
    names = [pieces.id_to_piece(token) for token in tokens]
    return [
        place
        for place, (name, after) in enumerate(zip(names, [*names[1:], WORD_START], strict=True))
        if name[0] == WORD_START and name[1:].isalpha() and (after[0] == WORD_START or after in ".,;:!?)")
    ]


def _text(pieces: sentencepiece.SentencePieceProcessor, tokens: list[int], hidden: list[int]) -> str:
    shown = (f"{WORD_START}{MASK}" if place in hidden else pieces.id_to_piece(token) for place, token in enumerate(tokens))
    return "".join(shown).replace(WORD_START, " ").strip()
