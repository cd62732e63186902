"""`python -m pipeline predict`."""

import argparse
import json
from pathlib import Path

from pipeline.verbs.figures import show

TEXT = """\
Ask a fine-tuned model: a question about a context (SQuAD), or whether a second sentence follows from the first (MNLI).
--run is a seed's folder of `finetune --out`.

  python -m pipeline predict --run tuned/small/squad2/seed-0 --question "Who sat?" --context "The cat sat on the mat."
  python -m pipeline predict --run tuned/small/mnli/seed-0 --first "The cat sat." --second "An animal sat."
"""
SHOWN = 5  # of the n-best, for people


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Which run, and what it is asked."""
    verb.add_argument(
        "--run", dest="run_dir", required=True, type=Path, metavar="DIR", help="a fine-tuned run: OUT/TASK/seed-N"
    )
    verb.add_argument("--question", metavar="TEXT", help="SQuAD: the question")
    verb.add_argument("--context", metavar="TEXT", help="SQuAD: the text that holds the answer, or does not")
    verb.add_argument("--first", metavar="TEXT", help="MNLI: the premise")
    verb.add_argument("--second", metavar="TEXT", help="MNLI: the hypothesis")
    verb.add_argument("--json", action="store_true", help="the answer alone on standard output, as JSON")


def run(args: argparse.Namespace) -> None:
    """Print what the model says."""
    about = (args.question, args.context)
    pair = (args.first, args.second)
    if not (all(text is not None for text in about) and pair == (None, None)) and not (
        all(text is not None for text in pair) and about == (None, None)
    ):
        raise ValueError("give either --question and --context, or --first and --second")
    from pipeline.finetune.predict import predict_answer, predict_label

    if args.first is not None:
        show(predict_label(args.run_dir, args.first, args.second), args.json)
        return
    said = predict_answer(args.run_dir, args.question, args.context)
    if args.json:
        print(json.dumps(said, indent=1, ensure_ascii=False))
        return
    print(said["answer"] or "(no answer in this context)")
    for entry in said["n_best"][:SHOWN]:
        print(f"  {entry['probability']:6.1%}  {entry['text'] or '(no answer)'}")
