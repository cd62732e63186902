"""The direction of imports, held by reading the source (docs/design.md, Imports)."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("preprocessing", "pipeline", "slurm", "benchmarks", "tests")
CONFIG = "pipeline/config.py"
ENGINE_USERS = {
    *("pipeline/train.py", "pipeline/certify.py", "pipeline/certify_cell.py", "pipeline/certify_watch.py"),
    *("pipeline/memory/worker.py", "benchmarks/memory_levers.py"),
}
LEAVES = (
    CONFIG,
    "pipeline/masking.py",
    "pipeline/optim/schedules.py",
    "pipeline/optim/relative_clip.py",
)
AUDITED_LOADER = ("preprocessing/audit/masking.py", "pipeline.data")
PREPROCESSING_DOORS = ("preprocessing.shards", "preprocessing.cli")


def imported_names(source: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import anywhere in source; a relative one keeps its leading dots.

    `from a import b` gives "a.b", for b may be a module. import_module("a") and __import__("a") count too.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            joint = "" if start.endswith(".") else "."
            yield from ((node.lineno, f"{start}{joint}{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value)


def within(name: str, module: str) -> bool:
    """Is the dotted name this module or something in it?"""
    return name == module or name.startswith(module + ".")


def any_within(name: str, *modules: str) -> bool:
    return any(within(name, module) for module in modules)


# Rule -> does this import (path of the importing file, dotted name) break it?
RULES: dict[str, Callable[[str, str], bool]] = {
    "imports are absolute": lambda path, name: name.startswith("."),
    "preprocessing knows neither pipeline nor torch nor deepspeed; its audit looks through pipeline.data": lambda path, name: (
        path.startswith("preprocessing/")
        and any_within(name, "pipeline", "torch", "deepspeed")
        and not (path == AUDITED_LOADER[0] and within(name, AUDITED_LOADER[1]))
    ),
    "pipeline reaches preprocessing only through preprocessing.shards and preprocessing.cli": lambda path, name: (
        path.startswith("pipeline/") and within(name, "preprocessing") and not any_within(name, *PREPROCESSING_DOORS)
    ),
    "config imports nothing of pipeline; masking, schedules and relative_clip only config": lambda path, name: (
        path in LEAVES and within(name, "pipeline") and (path == CONFIG or not within(name, "pipeline.config"))
    ),
    "only pipeline/engine.py imports deepspeed": lambda path, name: (
        path != "pipeline/engine.py" and not path.startswith("tests/") and within(name, "deepspeed")
    ),
    "only train, certify (two files) and memory import pipeline.engine": lambda path, name: (
        path not in ENGINE_USERS and not path.startswith("tests/") and within(name, "pipeline.engine")
    ),
    "neither pipeline nor preprocessing knows slurm": lambda path, name: (
        path.startswith(("pipeline/", "preprocessing/")) and within(name, "slurm")
    ),
    "only pipeline/__main__.py imports pipeline.train": lambda path, name: (
        path != "pipeline/__main__.py" and not path.startswith("tests/") and within(name, "pipeline.train")
    ),
}


def violations(path: str, source: str) -> list[str]:
    """One line for each import in source, the text of the file `path` (relative to the root), that breaks a rule."""
    return [
        f"{path}:{line}: imports {name}, but {rule}"
        for line, name in imported_names(source)
        for rule, broken in RULES.items()
        if broken(path, name)
    ]


def test_the_repository_keeps_the_rules() -> None:
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    assert ROOT / "pipeline/__init__.py" in paths
    assert ROOT / "preprocessing/cli.py" in paths
    found = [line for path in paths for line in violations(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("preprocessing/build.py", "import torch"),
        ("preprocessing/build.py", "import numpy, torch.nn as nn"),
        ("preprocessing/build.py", "def late():\n    from pipeline.config import RunConfig"),
        ("preprocessing/build.py", "import deepspeed"),
        ("pipeline/data.py", "from preprocessing import tokenizer"),
        ("pipeline/data.py", "from preprocessing.tokenizer import load"),
        ("pipeline/data.py", "import preprocessing"),
        ("pipeline/config.py", "from pipeline import engine_names"),
        ("pipeline/config.py", "from pipeline.config import recipes"),
        ("pipeline/masking.py", "import pipeline.data"),
        ("pipeline/optim/schedules.py", "from pipeline.optim import optimizer"),
        ("pipeline/optim/relative_clip.py", "from pipeline.optim.global_norms import norm"),
        ("pipeline/checkpoint/saver.py", "from deepspeed.utils import groups"),
        ("pipeline/checkpoint/saver.py", "import importlib\nimportlib.import_module('deepspeed')"),
        ("pipeline/checkpoint/saver.py", "__import__('deepspeed')"),
        ("benchmarks/norms.py", "import deepspeed"),
        ("pipeline/evaluate.py", "from pipeline.engine import Engine"),
        ("pipeline/model/encoder.py", "from pipeline import engine"),
        ("pipeline/export.py", "from pipeline.train import pretrain"),
        ("slurm/submit.py", "from pipeline import train"),
        ("pipeline/launch.py", "from slurm.site import Site"),
        ("pipeline/model/encoder.py", "from . import attention"),
        ("pipeline/model/encoder.py", "from ..config import RunConfig"),
        ("tests/test_x.py", "from .helpers import tiny"),
    ],
)
def test_a_violation_is_caught(path: str, source: str) -> None:
    found = violations(path, source)
    assert found
    assert all(line.startswith(f"{path}:") for line in found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("preprocessing/build.py", "import numpy\nfrom preprocessing.shards import Writer"),
        ("pipeline/data.py", "from preprocessing.shards import Reader\nfrom preprocessing import cli"),
        ("pipeline/optim/schedules.py", "from pipeline.config import ScheduleConfig"),
        ("pipeline/config.py", "import tomllib\nfrom preprocessing.cli import nearest"),
        ("pipeline/engine.py", "import deepspeed\nfrom deepspeed.utils import groups"),
        ("pipeline/train.py", "from pipeline import engine, training_plan"),
        ("pipeline/__main__.py", "from pipeline.train import pretrain"),
        ("tests/pipeline/test_engine.py", "import deepspeed\nfrom pipeline import engine, train"),
        ("pipeline/export.py", "import torchvision_like\nimport deepspeedy\nfrom pipeline import trainer"),
    ],
)
def test_what_is_allowed_passes(path: str, source: str) -> None:
    assert violations(path, source) == []


def test_every_rule_has_a_case_that_breaks_it() -> None:
    cases = next(mark for mark in test_a_violation_is_caught.pytestmark if mark.name == "parametrize").args[1]
    caught = "\n".join(line for path, source in cases for line in violations(path, source))
    assert [rule for rule in RULES if rule not in caught] == []
