"""`python -m pipeline VERB`: pretrain, evaluate, fill-mask, checkpoint, report, invariance, certify, memory, finetune, predict,
scorecard, score, export."""

import argparse
import os
from collections.abc import Sequence

from pipeline.verbs import (
    certify,
    checkpoint,
    evaluate,
    export,
    fill_mask,
    finetune,
    invariance,
    memory,
    predict,
    pretrain,
    report,
    score,
    scorecard,
)
from preprocessing.base import command_line
from preprocessing.base.streams import flush_or_drop

# Before torch is imported: its C++ prints pages of frames when a peer is gone, which is said in one line here.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

VERBS = {
    "pretrain": (pretrain, "train a recipe on a corpus"),
    "evaluate": (evaluate, "loss on the held-out text"),
    "fill-mask": (fill_mask, "what the model puts for [MASK]"),
    "checkpoint": (checkpoint, "list, verify, convert, prune"),
    "report": (report, "curves and figures of a run, in one HTML file"),
    "invariance": (invariance, "is a recipe's model exactly scale invariant?"),
    "certify": (certify, "is what runs here the recipe on paper?"),
    "memory": (memory, "what each rank holds, beside AdamW"),
    "finetune": (finetune, "a pretrained run on MNLI or SQuAD"),
    "predict": (predict, "ask a fine-tuned model"),
    "scorecard": (scorecard, "all tasks and seeds in one table, beside the paper's"),
    "score": (score, "SQuAD's and MNLI's official figures of anybody's predictions"),
    "export": (export, "a run as a folder for Hugging Face's transformers"),
}
"""Each module has TEXT, its description; add_arguments(parser); and run(arguments), which may return an exit code."""
COLLECTIVE = ("pretrain", "certify")  # the ranks of a launcher work together in them
WORK_COUNTS = ("pretrain", "certify", "report")  # of the others what they print is what they are for


def make_parser() -> command_line.Parser:
    """The command line of `python -m pipeline`."""
    parser = command_line.Parser(
        prog="python -m pipeline", description="Pretrain SIBERT with SGD on DeepSpeed, evaluate, report."
    )
    parser.collective = True  # which verb is meant is not known yet
    # The deepspeed launcher puts this before the verb; the environment says the same.
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB", parser_class=command_line.Parser)
    for name, (module, summary) in VERBS.items():
        verb = verbs.add_parser(
            name, help=summary, description=module.TEXT, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        verb.is_for(collective=name in COLLECTIVE, work_counts=name in WORK_COUNTS)
        verb.set_defaults(run=getattr(module, "run", None))
        module.add_arguments(verb)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb in argv; returns the exit code."""
    return command_line.run(make_parser(), argv)


if __name__ == "__main__":
    exit_code = main()
    flush_or_drop("stderr")
    # Everything is on disk. The teardown of torch's communication threads at the end of the interpreter has aborted a rank of
    # a run that was complete ("terminate called without an active exception"), which fails the whole job: skip it.
    os._exit(exit_code)
