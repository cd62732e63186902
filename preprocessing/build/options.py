"""The options that `build` and `tokenizer` share: sources, settings, gates, where and with how many processes."""

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from preprocessing.base.command_line import Parser
from preprocessing.base.files import file_sha256
from preprocessing.build.plan import Counted, Gates
from preprocessing.build.settings import Settings
from preprocessing.corpus.manifest import TOKENIZER_FILE
from preprocessing.sources.parse import parse_sources
from preprocessing.sources.types import Source
from preprocessing.text.tokenizer import load


def parse_build_options(words: Sequence[str]) -> argparse.Namespace:
    """The options of `python -m preprocessing tokenizer` as it understands them, or refuses them (SystemExit)."""
    parser = Parser(prog="python -m preprocessing tokenizer")
    add_settings(parser)
    add_gates(parser)
    add_place(parser)
    return parser.parse_args(words)


def add_settings(verb: argparse.ArgumentParser) -> None:
    """Sources and what shapes a corpus. Long, because it is a list: one declaration an option, and nothing is decided."""
    default = Settings()
    verb.add_argument(
        "--source",
        action="append",
        required=True,
        metavar="SOURCE",
        help="where text comes from, see above; repeat for more (their order is without effect)",
    )
    verb.add_argument("--streaming", action="store_true", help="read hub sets over the network, without a copy on this disk")
    verb.add_argument(
        "--vocab-size",
        type=int,
        help="pieces of the tokenizer, the 5 special ones included; 8192 suits some 10M words, BERT has 30522 "
        f"(default: {default.vocab_size}, or as --tokenizer has them)",
    )
    verb.add_argument(
        "--tokenizer",
        type=Path,
        metavar="CORPUS",
        help="take the tokenizer of this corpus (or this tokenizer.model) and train none: a model that knows it can then be "
        "evaluated on the new corpus, or be trained further on it (pretrain --from)",
    )
    verb.add_argument(
        "--heldout-fraction",
        type=float,
        default=default.heldout_fraction,
        help="share of documents held out for evaluation, by a hash of their text; of each source at least one "
        "(default: %(default)s)",
    )
    verb.add_argument(
        "--seed", type=int, default=default.seed, help="chooses held-out documents and tokenizer sample (default: %(default)s)"
    )
    verb.add_argument(
        "--min-words", type=int, default=default.min_words, help="drop documents with fewer words (default: %(default)s)"
    )
    verb.add_argument("--language", metavar="CODE", help="drop documents in another language, as py3langid sees it (en, de, …)")
    verb.add_argument(
        "--near-duplicates",
        type=float,
        metavar="SIMILARITY",
        help="drop documents whose word 5-grams are this alike to an earlier one's (MinHash, Jaccard), say 0.8; exact "
        "duplicates always go",
    )
    verb.add_argument(
        "--epochs",
        action="append",
        type=_named_number,
        default=[],
        metavar="NAME=N",
        help="read this source N times in an epoch of training (default: 1)",
    )
    verb.add_argument(
        "--weight",
        action="append",
        type=_named_number,
        default=[],
        metavar="NAME=W",
        help="instead of --epochs: the sources' shares of what training reads; every source is read at least once",
    )
    verb.add_argument(
        "--max-document-mb",
        type=float,
        default=default.max_document_mb,
        help="a document above this many MB (10^6 bytes) is a bad record: memory is bounded by it (default: %(default)s)",
    )
    verb.add_argument(
        "--sample-characters",
        type=int,
        default=default.sample_characters,
        help="characters the tokenizer is trained on (default: %(default)s)",
    )
    verb.add_argument(
        "--slice-mb",
        type=float,
        help="cut the input into pieces of so many MB of its files: the unit of work, one shard each "
        "(default: a thousandth of the input within 8 and 64, more beyond 10,000 slices)",
    )


def add_gates(verb: argparse.ArgumentParser) -> None:
    """What a build must keep to."""
    verb.add_argument(
        "--max-bad",
        type=int,
        default=0,
        help="go on with up to so many records that cannot be read; they are counted and named in the manifest "
        "(default: %(default)s)",
    )
    verb.add_argument(
        "--expect",
        action="append",
        type=_expectation,
        default=[],
        metavar="NAME:documents=N",
        help="fail unless the source yields at least N documents (or NAME:words=N); repeat for more",
    )


def add_place(verb: argparse.ArgumentParser) -> None:
    """Where the corpus goes, and how many processes make it."""
    verb.add_argument("--out", type=Path, required=True, help="the corpus, a directory to make; OUT.work is where it grows")
    verb.add_argument("--workers", type=_workers, help="processes (default: the cores this process may use)")


def _workers(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected 1 or more processes")
    return int(text)


def _named_number(text: str) -> tuple[str, float]:
    name, separator, number = text.rpartition("=")
    try:
        if not separator:
            raise ValueError
        return name, float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected NAME=NUMBER") from None


def _expectation(text: str) -> tuple[str, Counted, int]:
    found = re.fullmatch(r"(.+):(documents|words)=(\d[\d_]*)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected NAME:documents=N or NAME:words=N")
    return found[1], "words" if found[2] == "words" else "documents", int(found[3])


def task(text: str) -> tuple[int, int]:
    """ "I/N" with 0 <= I < N."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or int(found[1]) >= int(found[2]):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected I/N with 0 <= I < N, for example 0/8")
    return int(found[1]), int(found[2])


def sources_of(args: argparse.Namespace) -> tuple[Source, ...]:
    """The sources a command line names."""
    return parse_sources(args.source, streaming=args.streaming)


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings a command line gives. ValueError: one is out of range, a source named twice in one option."""
    for option, pairs in (("--epochs", args.epochs), ("--weight", args.weight)):
        name, count = Counter(name for name, _ in pairs).most_common(1)[0] if pairs else ("", 1)
        if count > 1:
            raise ValueError(f"{option}: {name} is given twice")
    given = given_tokenizer(args)
    return Settings(
        vocab_size=_vocab_size(args.vocab_size, given),
        tokenizer=None if given is None else file_sha256(given),
        heldout_fraction=args.heldout_fraction,
        seed=args.seed,
        min_words=args.min_words,
        language=args.language,
        near_duplicates=args.near_duplicates,
        max_document_mb=args.max_document_mb,
        sample_characters=args.sample_characters,
        slice_mb=args.slice_mb,
        epochs=dict(sorted(args.epochs)),
        weights=dict(sorted(args.weight)),
    )


def given_tokenizer(args: argparse.Namespace) -> Path | None:
    """The file that --tokenizer names, by itself or as a corpus' own."""
    given: Path | None = args.tokenizer
    return given / TOKENIZER_FILE if given is not None and given.is_dir() else given


def _vocab_size(asked: int | None, tokenizer: Path | None) -> int:
    """ValueError if it is not the given tokenizer's; errors as `load` for one that is none."""
    if tokenizer is None:
        return Settings().vocab_size if asked is None else asked
    pieces = len(load(tokenizer))
    if asked not in (None, pieces):
        raise ValueError(f"--vocab-size {asked}: {tokenizer} has {pieces} pieces; leave --vocab-size out")
    return pieces


def gates_of(args: argparse.Namespace) -> Gates:
    """The gates a command line gives."""
    least: dict[str, dict[Counted, int]] = {}
    for name, what, count in args.expect:
        least.setdefault(name, {})[what] = count
    return Gates(max_bad=args.max_bad, least=least)
