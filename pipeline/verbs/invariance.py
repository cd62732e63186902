"""`python -m pipeline invariance`."""

import argparse

from pipeline.verbs.arguments import add_recipe_arguments

TEXT = """\
Is the recipe's model exactly scale invariant? Prints the degree of every operation, derived from the paper's table and
measured, and three checks in float64, float32 and bf16: f(cx) = f(x), <x, ∇f> = 0, c∇f(cx) = ∇f(x). Exit code 0 if
everything passes, 1 if anything fails. base takes half a minute and 3 GB, large two minutes and 10 GB.
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Which recipe, and the size of the test."""
    add_recipe_arguments(verb)
    verb.add_argument("--vocab-size", type=int, default=1024, metavar="N", help="default: 1024; nothing depends on it but time")
    verb.add_argument("--seed", type=int, default=0, metavar="N", help="of the weights and the input; default: 0")


def run(args: argparse.Namespace) -> int:
    """Print the degrees and checks; 1 if anything fails."""
    from pipeline.config.load import load_recipe
    from pipeline.verify.invariance_report import report

    if args.vocab_size < 8:
        raise ValueError(f"--vocab-size {args.vocab_size}: expected at least 8")
    text, passed = report(load_recipe(args.recipe, args.overrides), args.vocab_size, args.seed)
    print(text)
    return int(not passed)
