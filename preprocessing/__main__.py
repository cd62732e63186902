"""`python -m preprocessing VERB`: text to tokenizer to shards, and the proof of what came out."""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any, Literal, TypeAlias

from preprocessing import help_texts
from preprocessing.base.command_line import Parser, run
from preprocessing.base.files import write_whole
from preprocessing.build.build import already_built, build, finalize, plan_and_train, run_task
from preprocessing.build.figures import figures, sequences, table
from preprocessing.build.options import (
    add_gates,
    add_place,
    add_settings,
    gates_of,
    given_tokenizer,
    settings_of,
    sources_of,
    task,
)
from preprocessing.corpus.reader import Corpus, open_corpus

Verbs: TypeAlias = "argparse._SubParsersAction[Parser]"


def make_parser() -> argparse.ArgumentParser:
    """The command line of `python -m preprocessing`."""
    parser = Parser(prog="python -m preprocessing", description="Text to tokenizer to shards.")
    verbs = parser.add_subparsers(required=True, metavar="VERB", parser_class=Parser)
    build_verb = _verb(verbs, "build", run_build, "build a corpus: all of the following on this machine's cores")
    tokenizer_verb = _verb(verbs, "tokenizer", run_tokenizer, "plan a build and train its tokenizer")
    for verb in (build_verb, tokenizer_verb):
        add_settings(verb)
        add_gates(verb)
    shard_verb = _verb(verbs, "shard", run_shard, "make shards of one task's share of the input")
    shard_verb.add_argument(
        "--task",
        type=task,
        default=(0, 1),
        metavar="I/N",
        help="this is task I of N, counted from 0 (default: 0/1, everything)",
    )
    finalize_verb = _verb(verbs, "finalize", run_finalize, "put the finished shards together")
    for verb in (build_verb, tokenizer_verb, shard_verb, finalize_verb):
        add_place(verb)
    for verb in (build_verb, finalize_verb):
        verb.add_argument("--json", action="store_true", help="print the figures as JSON, and nothing else")
    _add_audit(verbs)
    _add_inspect(verbs)
    return parser


def _verb(verbs: Verbs, name: str, function: Any, summary: str) -> Parser:
    verb = verbs.add_parser(
        name,
        help=summary,
        description=help_texts.DESCRIPTIONS[name],
        epilog=help_texts.EXAMPLES[name],
        formatter_class=argparse.RawDescriptionHelpFormatter,  # keeps the line breaks of the texts
    )
    verb.is_for(work_counts=name != "inspect")  # what `inspect` prints is what it is for
    verb.set_defaults(run=function)
    return verb


def _add_audit(verbs: Verbs) -> None:
    verb = _verb(verbs, "audit", run_audit, "prove a corpus: files, counts, statistics, masking; a page to look at")
    verb.add_argument("directory", type=Path, metavar="DIR", help="the corpus")
    verb.add_argument("--html", type=Path, metavar="FILE", help="where the page goes (default: DIR.audit.html)")
    verb.add_argument("--seq-len", type=int, default=128, help="tokens of the masked sequences (default: %(default)s)")
    verb.add_argument("--positions", type=int, default=1_000_000, help="masked positions to look at (default: %(default)s)")
    verb.add_argument("--seed", type=int, default=0, help="of masks and examples (default: %(default)s)")
    verb.add_argument("--json", action="store_true", help="print checks and figures as JSON, and nothing else")


def _add_inspect(verbs: Verbs) -> None:
    verb = _verb(verbs, "inspect", run_inspect, "print what a corpus holds, from its manifest")
    verb.add_argument("directory", type=Path, metavar="DIR", help="the corpus")
    verb.add_argument("--sequences", type=int, default=2, help="also decode this many random stretches (default: %(default)s)")
    verb.add_argument("--seq-len", type=int, default=128, help="tokens of each stretch (default: %(default)s)")
    verb.add_argument("--seed", type=int, default=0, help="chooses the stretches (default: %(default)s)")
    verb.add_argument("--json", action="store_true", help="print the figures as JSON, and nothing else")


def _say(line: str) -> None:
    """A line at once, for a reader who waits."""
    print(line, flush=True)


def _warn(line: str) -> None:
    """Say warnings, and nothing else, where they are not taken for JSON."""
    if line.startswith("WARNING"):
        print(line, file=sys.stderr, flush=True)


def _stop_as_after_ctrl_c() -> None:
    """A batch system ends a job with SIGTERM: end as after Ctrl-C, workers and all."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def run_build(args: argparse.Namespace) -> None:
    """The verb `build`."""
    _stop_as_after_ctrl_c()
    say = _warn if args.json else _say
    sources, settings, tokenizer = sources_of(args), settings_of(args), given_tokenizer(args)
    build(sources, args.out, settings, gates=gates_of(args), tokenizer=tokenizer, workers=args.workers, say=say)
    _print_figures(args)


def run_tokenizer(args: argparse.Namespace) -> None:
    """The verb `tokenizer`."""
    _stop_as_after_ctrl_c()
    sources, settings, gates = sources_of(args), settings_of(args), gates_of(args)
    if already_built(sources, args.out, settings, gates) is not None:
        _say(f"{args.out}: already built with these sources and settings")
        return
    plan = plan_and_train(sources, args.out, settings, gates, tokenizer=given_tokenizer(args), workers=args.workers, say=_say)
    _say(f"planned: {len(plan.slices)} slices; next: python -m preprocessing shard --out {quote(str(args.out))} --task I/N")


def run_shard(args: argparse.Namespace) -> None:
    """The verb `shard`."""
    _stop_as_after_ctrl_c()
    run_task(args.out, *args.task, workers=args.workers, say=_say)


def run_finalize(args: argparse.Namespace) -> None:
    """The verb `finalize`."""
    _stop_as_after_ctrl_c()
    finalize(args.out, workers=args.workers, say=_warn if args.json else _say)
    _print_figures(args)


def _print_figures(args: argparse.Namespace) -> None:
    found = figures(open_corpus(args.out, verify="sizes"))
    _say(json.dumps(found, indent=2) if args.json else table(found))


def training_loader(corpus: Corpus, objective: Literal["mlm", "mlm+nsp"], seq_len: int, mask_fraction: float, seed: int) -> Any:
    """The loader of the pretraining; torch comes with it, for nothing else here."""
    from pipeline.data.pretraining import PretrainingData

    return PretrainingData(corpus, "train", objective, seq_len, mask_fraction, seed)


def run_audit(args: argparse.Namespace) -> int:
    """The verb `audit`: 1 if a check fails."""
    from preprocessing.audit.audit import audit, table
    from preprocessing.audit.page import page

    say = (lambda line: None) if args.json else _say
    found = audit(args.directory, training_loader, seed=args.seed, positions=args.positions, seq_len=args.seq_len, say=say)
    directory = args.directory.resolve()
    html = args.html or directory.with_name(directory.name + ".audit.html")
    write_whole(html, page(found).encode())
    if args.json:
        print(json.dumps({"checks": [vars(check) for check in found.checks], "figures": found.figures}, indent=2))
    else:
        print(table(found))
        print(f"\npage: {html}")
    return 0 if found.passed else 1


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
    """Entry point; returns the exit code (see preprocessing.base.command_line.run)."""
    return run(make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
