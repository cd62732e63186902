"""`python -m preprocessing VERB`: build a corpus from text, inspect a corpus."""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from preprocessing.build import SHARD_TOKENS, build
from preprocessing.cli import Parser, run
from preprocessing.report import figures, sequences, table
from preprocessing.shards import open_corpus
from preprocessing.sources import parse_sources

BUILD_HELP = """\
Build a corpus: read the sources, drop short and duplicate documents, train a SentencePiece tokenizer, hold some
documents out for evaluation, and write token shards and a manifest to OUT.

Sources are *.jsonl or *.jsonl.gz files, one JSON object a line with a `text` column (`id` and `title` are kept if
present): the columns of the Hugging Face datasets wikimedia/wikipedia and bookcorpusopen. `builtin` is Python's own
reference and docstrings, real text that is on every machine.

OUT appears only when it is whole. If it is there already, built from the same sources with the same settings, nothing
is done; if it is anything else, nothing is touched and the error says what differs.
"""
BUILD_EXAMPLES = """\
examples:
  python -m preprocessing build --source builtin --vocab-size 4096 --out demo/corpus
  python -m preprocessing build --source 'wiki=data/wiki-*.jsonl.gz' --source books=data/books.jsonl.gz \\
      --vocab-size 30522 --out corpus
"""
INSPECT_HELP = """\
Check every file of a corpus against its manifest (sizes and sha256) and print what it holds: sources, documents,
sentences, words, tokens, what was dropped and why, the unigram entropy of the held-out text.
"""
INSPECT_EXAMPLES = """\
example:
  python -m preprocessing inspect demo/corpus --sequences 3 --seq-len 64
"""


Verbs: TypeAlias = "argparse._SubParsersAction[Parser]"
KIND = argparse.RawDescriptionHelpFormatter  # keeps the line breaks of the texts above


def make_parser() -> argparse.ArgumentParser:
    """The command line of `python -m preprocessing`."""
    parser = Parser(prog="python -m preprocessing", description="Text to tokenizer to shards.")
    verbs = parser.add_subparsers(required=True, metavar="VERB", parser_class=Parser)
    _add_build(verbs)
    _add_inspect(verbs)
    return parser


def _add_build(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "build", help="build a corpus from text", description=BUILD_HELP, epilog=BUILD_EXAMPLES, formatter_class=KIND
    )
    verb.set_defaults(run=run_build)
    verb.add_argument(
        "--source",
        action="append",
        required=True,
        metavar="SOURCE",
        help="builtin, PATH or LABEL=PATH; PATH may be a quoted glob; repeat for more sources (their order is "
        "without effect); the label defaults to the file's name",
    )
    verb.add_argument("--out", type=Path, required=True, help="directory to make")
    verb.add_argument(
        "--vocab-size",
        type=int,
        default=8192,
        help="pieces of the tokenizer, the 5 special ones included; 8192 suits some 10M words, BERT has 30522 "
        "(default: %(default)s)",
    )
    verb.add_argument(
        "--heldout-fraction",
        type=float,
        default=0.02,
        help="share of each source's documents held out for evaluation, at least one (default: %(default)s)",
    )
    verb.add_argument(
        "--seed", type=int, default=0, help="chooses held-out documents and tokenizer sample (default: %(default)s)"
    )
    verb.add_argument("--min-words", type=int, default=20, help="drop documents with fewer words (default: %(default)s)")
    verb.add_argument(
        "--max-document-mb",
        type=float,
        default=20,
        help="refuse input lines above this many MB (10^6 bytes): memory is bounded by it (default: %(default)s)",
    )
    verb.add_argument(
        "--shard-tokens",
        type=int,
        default=SHARD_TOKENS,
        help="start a new shard file after this many tokens (default: %(default)s, 32 MB)",
    )
    verb.add_argument("--json", action="store_true", help="print the figures as JSON, and nothing else")


def _add_inspect(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "inspect",
        help="check a corpus and print what it holds",
        description=INSPECT_HELP,
        epilog=INSPECT_EXAMPLES,
        formatter_class=KIND,
    )
    verb.set_defaults(run=run_inspect)
    verb.add_argument("directory", type=Path, metavar="DIR", help="the corpus")
    verb.add_argument("--sequences", type=int, default=2, help="also decode this many random stretches (default: %(default)s)")
    verb.add_argument("--seq-len", type=int, default=128, help="tokens of each stretch (default: %(default)s)")
    verb.add_argument("--seed", type=int, default=0, help="chooses the stretches (default: %(default)s)")
    verb.add_argument("--json", action="store_true", help="print the figures as JSON, and nothing else")


def run_build(args: argparse.Namespace) -> None:
    """The verb `build`."""
    # A batch system ends a job with SIGTERM: clean up as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not 0 < args.max_document_mb < 1e6:
        raise ValueError(f"--max-document-mb {args.max_document_mb}: expected more than 0 and below a million")
    build(
        parse_sources(args.source, args.max_document_mb),
        args.out,
        vocab_size=args.vocab_size,
        heldout_fraction=args.heldout_fraction,
        seed=args.seed,
        min_words=args.min_words,
        shard_tokens=args.shard_tokens,
        say=(lambda line: None) if args.json else (lambda line: print(line, flush=True)),
    )
    found = figures(open_corpus(args.out, verify="sizes"))
    print(json.dumps(found, indent=2) if args.json else table(found))


def run_inspect(args: argparse.Namespace) -> None:
    """The verb `inspect`."""
    corpus = open_corpus(args.directory, verify="hashes")
    found = figures(corpus)
    texts = sequences(corpus, args.sequences, args.seq_len, args.seed)
    if args.json:
        print(json.dumps({**found, "sequences": texts}, indent=2, ensure_ascii=False))
        return
    print(table(found))
    for number, text in enumerate(texts):
        print(f"\nsequence {number}: {text}")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code (see preprocessing.cli.run)."""
    return run(make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
