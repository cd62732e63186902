"""Options that several verbs share."""

import argparse


def add_recipe_arguments(verb: argparse.ArgumentParser) -> None:
    """--recipe and --set."""
    from pipeline.config.load import recipe_names

    names = ", ".join(recipe_names())
    verb.add_argument("--recipe", required=True, metavar="NAME", help=f"one of {names}; or the path of a .toml file")
    verb.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one value of the recipe, such as optim.lr=0.1 or train.steps=500; repeatable",
    )
