"""`python -m pipeline VERB`: pretrain, evaluate, fill-mask, checkpoint, report, invariance, certify, memory, finetune, predict,
scorecard, score, export, experiment."""

import argparse
import os
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

from pipeline.verbs import (
    certify,
    checkpoint,
    evaluate,
    experiment,
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


class Verb(NamedTuple):
    """`module` has TEXT, its description; add_arguments(parser); and run(arguments), which may return an exit code.

    `collective`: the ranks of a launcher work together in it. `work_counts`: it leaves its work on disk; of the others what
    they print is what they are for.
    """

    module: ModuleType
    summary: str
    collective: bool = False
    work_counts: bool = False


VERBS = {
    "pretrain": Verb(pretrain, "train a recipe on a corpus", collective=True, work_counts=True),
    "evaluate": Verb(evaluate, "loss on the held-out text"),
    "fill-mask": Verb(fill_mask, "what the model puts for [MASK]"),
    "checkpoint": Verb(checkpoint, "list, verify, convert, prune"),
    "report": Verb(report, "curves and figures of a run, in one HTML file", work_counts=True),
    "invariance": Verb(invariance, "is a recipe's model exactly scale invariant?"),
    "certify": Verb(certify, "is what runs here the recipe on paper?", collective=True, work_counts=True),
    "memory": Verb(memory, "what each rank holds, beside AdamW"),
    "finetune": Verb(finetune, "a pretrained run on MNLI or SQuAD", collective=True, work_counts=True),
    "predict": Verb(predict, "ask a fine-tuned model"),
    "scorecard": Verb(scorecard, "all tasks and seeds in one table, beside the paper's"),
    "score": Verb(score, "SQuAD's and MNLI's official figures of anybody's predictions"),
    "export": Verb(export, "a run as a folder for Hugging Face's transformers"),
    "experiment": Verb(experiment, "check a claim of the papers: a table, a picture, every figure", work_counts=True),
}


def make_parser() -> command_line.Parser:
    """The command line of `python -m pipeline`."""
    parser = command_line.Parser(
        prog="python -m pipeline", description="Pretrain SIBERT with SGD on DeepSpeed, evaluate, report."
    )
    parser.collective = True  # which verb is meant is not known yet
    # The deepspeed launcher puts this before the verb; the environment says the same.
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB", parser_class=command_line.Parser)
    for name, of in VERBS.items():
        verb = verbs.add_parser(
            name, help=of.summary, description=of.module.TEXT, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        verb.is_for(of.collective, of.work_counts)
        verb.set_defaults(run=getattr(of.module, "run", None))
        of.module.add_arguments(verb)
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
