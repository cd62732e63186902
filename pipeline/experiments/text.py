"""What experiments train on, and with which settings: a corpus, or Python's own texts, built where the experiment writes."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from preprocessing.corpus.reader import Corpus  # not before it is needed: the command line alone brings no pyarrow

VOCAB_SIZE, HELDOUT_FRACTION = 1024, 0.05


def add_data_argument(parser: argparse.ArgumentParser) -> None:
    """--data."""
    help_text = "a corpus (default: Python's own texts, 0.5 million tokens, built in OUT/corpus)"
    parser.add_argument("--data", type=Path, metavar="DIR", help=help_text)


def corpus_of(data: Path | None, out: Path) -> "Corpus":
    """The corpus at `data`; without one, the built-in text's at OUT/corpus, which takes half a minute the first time."""
    from preprocessing.corpus.reader import open_corpus

    if data is not None:
        return open_corpus(data)
    from preprocessing.build.build import build
    from preprocessing.build.settings import Settings
    from preprocessing.sources.builtin import builtin_sources

    settings = Settings(vocab_size=VOCAB_SIZE, heldout_fraction=HELDOUT_FRACTION)
    build(builtin_sources(), out / "corpus", settings)
    return open_corpus(out / "corpus")


def add_set_argument(parser: argparse.ArgumentParser, recipes: str) -> None:
    """--set, over the settings of the experiment itself."""
    help_text = f"change a setting of every training (recipe {recipes}), such as train.steps=500 or model.layers=4; repeatable"
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help=help_text)
