"""What building a corpus costs: throughput beside its peers, and memory.

    python -m benchmarks.corpus_build throughput data/wiki.jsonl.gz data/books.jsonl.gz [--mb 20]
    python -m benchmarks.corpus_build memory data/wiki.jsonl.gz [--mb 100 2000]

throughput: seconds from JSON-lines (gzipped) to a finished corpus on one process, tokenizer at hand (`shard` and `finalize`),
beside (floor) SentencePiece encoding the same sentences, nothing else, one thread; and (usual path) datasets.map as run_mlm
has it, with a Hugging Face WordPiece tokenizer of the same size, one thread: tokenize, then group into blocks. In turn,
medians. Needs benchmarks/requirements.txt.

memory: peak resident memory of one worker process in each step, for inputs of several sizes made by repeating the text with its
paragraphs shuffled by another seed each time.
"""

import argparse
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.timing import medians_s
from preprocessing.build.build import finalize, plan_and_train, run_task
from preprocessing.build.plan import Gates, work_folder
from preprocessing.build.settings import Settings
from preprocessing.corpus.reader import open_corpus
from preprocessing.sources.parse import parse_sources
from preprocessing.text.clean import clean
from preprocessing.text.sentences import split_sentences
from preprocessing.text.tokenizer import load

VOCAB_SIZE = 8192
BLOCK = 128


def texts(paths: list[Path]) -> Iterator[dict[str, Any]]:
    """The rows of JSON-lines files, at every moment about as much text of each."""
    with ExitStack() as stack:
        given = {stack.enter_context(gzip.open(path, "rt", encoding="utf-8")): 0 for path in paths}
        while given:
            file = min(given, key=lambda one: given[one])
            if not (line := file.readline()):
                del given[file]
                continue
            given[file] += len(line)
            yield json.loads(line)


def write_rows(path: Path, rows: Iterator[dict[str, Any]], mb: float) -> float:
    """Write rows until there are so many MB of text; returns the MB."""
    written = 0
    with gzip.open(path, "wt", compresslevel=1, encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            written += len(row["text"].encode())
            if written >= mb * 1e6:
                break
    return written / 1e6


def throughput(args: argparse.Namespace) -> None:
    """Print the table of throughputs."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # per core
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        path = place / "text.jsonl.gz"
        mb = write_rows(path, texts(args.files), args.mb)
        out = place / "corpus"
        ours(path, out)
        tokens = sum(open_corpus(out).manifest.tokens(split) for split in ("train", "heldout"))
        tokenizer = load(out / "tokenizer.model")
        with gzip.open(path, "rt", encoding="utf-8") as file:
            raw = [json.loads(line)["text"] for line in file]
        sentences = [s for text in raw for p in clean(text).paragraphs for s in split_sentences(p)]
        seconds = medians_s(
            {
                "ours": lambda: ours(path, place / "again"),
                "floor": lambda: tokenizer.encode(sentences, num_threads=1),
                "usual": usual_path(path, raw, place),
            },
            args.rounds,
            warm=0,
        )
    print(f"{mb:.1f} MB of text, {tokens:,} tokens, {args.rounds} rounds\n")
    print(f"| | MB/s | ours is |\n|---|---|---|\n| ours, JSON-lines to corpus | {mb / seconds['ours']:.2f} | |")
    floor, usual = seconds["floor"] / seconds["ours"], seconds["usual"] / seconds["ours"]
    print(f"| SentencePiece's encode alone | {mb / seconds['floor']:.2f} | {floor:.0%} of it |")
    print(f"| datasets.map, WordPiece, blocks | {mb / seconds['usual']:.2f} | {usual:.1f} times it |")


def ours(path: Path, out: Path) -> None:
    """Build a corpus; the plan and the tokenizer of the first build are used again, outside of what is repeated."""
    folder, kept = work_folder(out), path.with_name("plan")
    if not kept.exists():
        settings = Settings(vocab_size=VOCAB_SIZE)
        plan_and_train(parse_sources([str(path)]), out, settings, Gates(), workers=2, say=lambda line: None)
        subprocess.run(["cp", "-r", str(folder), str(kept)], check=True)
    else:
        subprocess.run(["rm", "-rf", str(out)], check=True)
        subprocess.run(["cp", "-r", str(kept), str(folder)], check=True)
    run_task(out, workers=1, say=lambda line: None)
    finalize(out, workers=1, say=lambda line: None)


def usual_path(path: Path, raw: list[str], place: Path) -> Any:
    """run_mlm's way: load_dataset, map(tokenize), map(group), all batched; nothing is taken from a cache."""
    import datasets
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    datasets.disable_progress_bars()
    trained = BertWordPieceTokenizer()
    trained.train_from_iterator(raw, vocab_size=VOCAB_SIZE, show_progress=False)
    (vocab_file,) = trained.save_model(str(place))
    tokenizer = BertTokenizerFast(vocab_file)
    runs = iter(range(1000))

    def group(examples: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        whole = {key: list(chain.from_iterable(values)) for key, values in examples.items()}
        total = len(whole["input_ids"]) // BLOCK * BLOCK
        return {key: [values[i : i + BLOCK] for i in range(0, total, BLOCK)] for key, values in whole.items()}

    def run() -> None:
        cache = str(place / f"cache{next(runs)}")
        data = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=cache)
        columns = data.column_names
        encoded = data.map(
            lambda rows: tokenizer(rows["text"], return_special_tokens_mask=True), batched=True, remove_columns=columns
        )
        encoded.map(group, batched=True)

    return run


def memory(args: argparse.Namespace) -> None:
    """Print the table of peaks."""
    print("| text | tokenizer | shard | finalize |\n|---|---|---|---|")
    for mb in args.mb:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            path, out = Path(folder) / "text.jsonl.gz", Path(folder) / "corpus"
            made = write_rows(path, shuffled(list(texts(args.files))), mb)
            verbs: dict[str, list[str]] = {
                "tokenizer": ["--source", str(path), "--vocab-size", str(VOCAB_SIZE)],
                "shard": [],
                "finalize": [],
            }
            peaks = [peak_mb([verb, *rest, "--out", str(out), "--workers", "1"]) for verb, rest in verbs.items()]
        print(f"| {made:,.0f} MB | " + " | ".join(f"{peak:.0f} MB" for peak in peaks) + " |", flush=True)


def shuffled(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows again and again, each time with every text's paragraphs in another order."""
    for seed in range(10_000):
        generator = random.Random(seed)
        for number, row in enumerate(rows):
            paragraphs = row["text"].split("\n")
            generator.shuffle(paragraphs)
            yield {"id": f"{seed}-{number}", "title": row.get("title", ""), "text": "\n".join(paragraphs)}


def peak_mb(arguments: list[str]) -> float:
    """Peak resident memory, in MB (10^6 bytes), of a verb's process; a process of its own measures it."""
    program = (
        "import resource, subprocess, sys; subprocess.run([sys.executable, '-m', 'preprocessing', *sys.argv[1:]], check=True, "
        "stdout=subprocess.DEVNULL); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return int(done.stdout) * resource_unit_bytes() / 1e6


def resource_unit_bytes() -> int:
    """ru_maxrss counts kB on Linux, bytes on macOS."""
    return 1 if sys.platform == "darwin" else 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    one = parts.add_parser("throughput")
    one.set_defaults(run=throughput)
    one.add_argument("--mb", type=float, default=20, help="text to build from (default: %(default)s)")
    one.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    two = parts.add_parser("memory")
    two.set_defaults(run=memory)
    two.add_argument("--mb", type=float, nargs="+", default=[100, 2000], help="sizes of the text (default: 100 2000)")
    two.add_argument("--folder", help="where the inputs are made (default: the system's temporary folder)")
    for part in (one, two):
        part.add_argument("files", type=Path, nargs="+", help="*.jsonl.gz with a text column")
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
