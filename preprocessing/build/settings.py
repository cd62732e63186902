"""The settings of a build: what shapes a corpus beside its sources."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from preprocessing.build.mixing import check_mixing
from preprocessing.build.plan import default_slice_mb
from preprocessing.sources.types import Source
from preprocessing.text.tokenizer import SAMPLE_CHARACTERS


@dataclass(frozen=True)
class Settings:
    """What shapes a corpus beside its sources. slice_mb None: see plan.default_slice_mb.

    ValueError from `check`: a number out of range.
    """

    vocab_size: int = 8192
    heldout_fraction: float = 0.02
    seed: int = 0
    min_words: int = 20
    language: str | None = None
    near_duplicates: float | None = None
    max_document_mb: float = 20.0
    sample_characters: int = SAMPLE_CHARACTERS
    slice_mb: float | None = None
    epochs: tuple[tuple[str, float], ...] = ()
    weights: tuple[tuple[str, float], ...] = ()

    def check(self, sources: Sequence[Source]) -> dict[str, Any]:
        """The settings as the plan keeps them, checked."""
        slice_mb = default_slice_mb(sources) if self.slice_mb is None else self.slice_mb
        epochs, weights = dict(self.epochs), dict(self.weights)
        found = {**vars(self), "slice_mb": slice_mb, "epochs": epochs, "weights": weights}
        limits = {
            "heldout_fraction": (0.0, 1.0, "a fraction above 0 and below 1"),
            "vocab_size": (5, 1 << 20, "6 to 1048575 pieces"),
            "sample_characters": (0, 1 << 40, "at least 1 character"),
            "min_words": (-1, 1 << 40, "0 words or more"),
            "max_document_mb": (0, 1e6, "more than 0 and below a million"),
            "slice_mb": (0, 2001, "more than 0 and at most 2000 (a shard holds less than 2^31 tokens)"),
            "near_duplicates": (0.3, 1.0, "a similarity above 0.3 and below 1"),
        }
        for name, (low, high, expected) in limits.items():
            if found[name] is not None and not low < found[name] < high:
                raise ValueError(f"--{name.replace('_', '-')} {found[name]}: expected {expected}")
        if self.language is not None and not (len(self.language) == 2 and self.language.isalpha() and self.language.islower()):
            raise ValueError(f"--language {self.language}: expected a code of two letters, such as en")
        check_mixing([source.name for source in sources], epochs, weights)
        return found
