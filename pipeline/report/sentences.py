"""The sentences of RUN/guesses.json as a page shows them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preprocessing.text.tokenizer import readable


@dataclass(frozen=True)
class Mask:
    """A hidden word, and the guesses, the most probable first: (piece, probability in percent, is it the word?)."""

    truth: str
    guesses: Sequence[tuple[str, str, bool]]


@dataclass(frozen=True)
class Sentence:
    """A held-out sentence with [MASK] for its hidden words, and those in its order."""

    text: str
    masks: Sequence[Mask]


def sentences(run_dir: Path, guesses: Mapping[str, Any]) -> list[Sentence]:
    """Of a run's guesses.json; none of an older run. ValueError if it is something else."""
    try:
        return [
            Sentence(str(sentence["text"]), [_mask(mask) for mask in sentence["masks"]])
            for sentence in guesses.get("sentences", ())
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{run_dir}/guesses.json: not what a run writes at its end ({error!r}); move it away: `pretrain` makes it again"
        ) from None


def _mask(mask: Mapping[str, Any]) -> Mask:
    best = [(readable(g["piece"]), f"{g['probability']:.0%}", g["piece"] == mask["truth"]) for g in mask["guesses"]]
    return Mask(readable(mask["truth"]), best)
