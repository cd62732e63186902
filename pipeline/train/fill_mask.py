"""What a model puts for [MASK]: a text with [MASK] in it to ids, and the most probable pieces at each."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sentencepiece
import torch

from pipeline.data.batch import Batch
from pipeline.model.precision import at_least_fp32
from pipeline.model.pretraining import PretrainingModel
from pipeline.run.trained import load_run
from preprocessing.corpus.reader import CLS_ID, FIRST_ORDINARY_ID, MASK_ID, SEP_ID, SPECIAL_PIECES, UNK_ID
from preprocessing.text import tokenizer
from preprocessing.text.aligned import aligned
from preprocessing.text.tokenizer import WORD_START

MASK = SPECIAL_PIECES[MASK_ID]
BEST = 5
STAND_IN = "\ue000"  # for [MASK] while the text around it is cut into pieces: private use, in no text and no vocabulary


@dataclass(frozen=True)
class Guess:
    """A piece and the probability that the model gives it."""

    piece: str
    probability: float


def fill_masks(run_dir: Path, texts: Sequence[str], data_dir: Path | None = None) -> Iterator[dict[str, Any]]:
    """For each text {"text", "masks": [[{"piece", "probability"}, …] for each [MASK] in order]}, the most probable piece first,
    by the run's newest checkpoint. ValueError: no such run or checkpoint, a text without [MASK] or too long for the run."""
    config, corpus, model, _ = load_run(run_dir, data_dir, verify="sizes")  # of the corpus only the small files are read
    pieces = tokenizer.load(corpus.tokenizer_path)
    for text in texts:
        ids = masked_ids(pieces, text, config.data.seq_len)
        yield {"text": text, "masks": [[asdict(guess) for guess in best] for best in guesses(model, pieces, ids)]}


def masked_ids(pieces: sentencepiece.SentencePieceProcessor, text: str, seq_len: int) -> list[int]:
    """[CLS] text [SEP], with a [MASK] for each that the text has; the text cleaned as that of a corpus is.

    [MASK] is one piece: after a space or at the start it stands for one that begins a word, else for one that goes on with it.
    ValueError: no [MASK], U+E000, or more than seq_len ids.
    """
    clean = aligned(text).text
    if MASK not in clean:
        raise ValueError(f"{text!r}: expected {MASK} where a word is missing, as in 'a list of {MASK}'")
    if STAND_IN in text:
        raise ValueError(f"{text!r}: U+E000 has no meaning; leave it out")
    ids = [CLS_ID]
    for piece in pieces.encode(clean.replace(MASK, STAND_IN), out_type=str):
        if STAND_IN not in piece:
            ids.append(pieces.piece_to_id(piece))
            continue
        # Unknown characters that touch are one piece: [MASK][MASK], or a mask beside a letter of another script.
        for is_mask, run in itertools.groupby(piece, key=STAND_IN.__eq__):
            if is_mask:
                if ids[-1] == pieces.piece_to_id(WORD_START):
                    ids.pop()  # the space before it is the missing piece's own
                ids += [MASK_ID] * len(list(run))
            elif set(run) != {WORD_START}:
                ids.append(UNK_ID)
    ids.append(SEP_ID)
    if len(ids) > seq_len:
        raise ValueError(
            f"{text[:40]!r}…: {len(ids) - 2} pieces, expected at most {seq_len - 2}, for the run was trained on sequences of "
            f"{seq_len} with [CLS] and [SEP]; shorten the text"
        )
    return ids


@torch.no_grad()
def guesses(
    model: PretrainingModel, pieces: sentencepiece.SentencePieceProcessor, ids: Sequence[int], best: int = BEST
) -> list[list[Guess]]:
    """For each [MASK] of the sequence the `best` most probable pieces, the most probable first. Special ones are left out: they
    are never predicted."""
    input_ids = torch.tensor([list(ids)])
    positions = (input_ids == MASK_ID).nonzero()[:, 1][None]
    nothing = torch.zeros_like(positions)
    batch = Batch(input_ids, torch.zeros_like(input_ids), positions, labels=nothing, weights=nothing.float())
    model.eval()
    _, logits_NV = model.token_logits(batch)
    probability_NV = at_least_fp32(logits_NV).softmax(-1)[:, FIRST_ORDINARY_ID:]
    found = probability_NV.topk(min(best, probability_NV.shape[1]))
    return [
        [Guess(pieces.id_to_piece(FIRST_ORDINARY_ID + place), probability) for place, probability in zip(*row, strict=True)]
        for row in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    ]
