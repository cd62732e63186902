"""`python -m pipeline fill-mask`."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEXT = """\
What does the model put for [MASK]? The five most probable pieces for each, by the run's newest checkpoint. Without TEXT every
line of standard input is one. A piece is a word or a part of one; "…" before it: it goes on with the word before.
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Which run, and what text."""
    verb.add_argument("text", nargs="?", metavar="TEXT", help="such as 'The capital of France is [MASK].'")
    verb.add_argument("--run", dest="run_dir", required=True, type=Path, metavar="DIR", help="a run with a checkpoint")
    verb.add_argument("--data", type=Path, metavar="DIR", help="where the run's corpus is now (default: where it was)")
    verb.add_argument(
        "--json", action="store_true", help="an object a text, its pieces as in the vocabulary (▁: a word begins)"
    )


def run(args: argparse.Namespace) -> None:
    """Print the guesses, text by text."""
    from pipeline.train.fill_mask import fill_masks

    lines = [args.text] if args.text is not None else sys.stdin.read().splitlines()
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise ValueError("no text: give it in quotes behind the options, or a line each on standard input")
    for filled in fill_masks(args.run_dir, texts, args.data):
        print(json.dumps(filled, ensure_ascii=False) if args.json else _shown(filled))


def _shown(filled: Mapping[str, Any]) -> str:
    from preprocessing.text.tokenizer import readable

    rows = ["   ".join(f"{readable(g['piece'])} {g['probability']:.1%}" for g in best) for best in filled["masks"]]
    return "\n".join([filled["text"], *(f"  [MASK]  {row}" for row in rows)])
