"""The direction of imports, held by reading the source: docs/design.md has the floors and why they are so."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.running import ROOT

# From the ground up: a folder imports only itself and what stands before it.
FLOORS = (
    "preprocessing.base",
    "preprocessing.corpus",
    "preprocessing.sources.wiki",
    "preprocessing.sources",
    "preprocessing.text",
    "preprocessing.build",
    "preprocessing.audit",
    "preprocessing",
    "pipeline.config",
    "pipeline.data",
    "pipeline.tasks",
    "pipeline.model",
    "pipeline.optim",
    "pipeline.init",
    "pipeline.distributed",
    "pipeline.engine",
    "pipeline.checkpoint",
    "pipeline.run",
    "pipeline.memory",
    "pipeline.train",
    "pipeline.finetune",
    "pipeline.verify",
    "pipeline.report",
    "pipeline.export",
    "pipeline.experiments",
    "pipeline.verbs",
    "pipeline",
    "preprocessing.__main__",
    "slurm",
    "benchmarks",
    "benchmarks.gpu_acceptance",
    "tests",
)
# Rooms beside each other, one folder an experiment: all on one floor, and none imports another.
EXPERIMENTS = "pipeline.experiments"
# No floor up to this one knows torch; no floor but the engine's knows deepspeed (tests may look into it).
LAST_WITHOUT_TORCH = "preprocessing"
ENGINE = "pipeline.engine"
PACKAGES = ("preprocessing", "pipeline", "slurm", "benchmarks", "tests")


def module_of(path: Path) -> str:
    """pipeline/model/heads.py -> pipeline.model.heads"""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def sources() -> dict[str, str]:
    """The text of every module of the repository, by its dotted name."""
    paths = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {module_of(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


def within(name: str, module: str) -> bool:
    """Is the dotted name this module, or in it?"""
    return name == module or name.startswith(module + ".")


@cache
def imported(source: str) -> list[tuple[int, str]]:
    """(line, dotted name) of every import anywhere in source; a relative one keeps its dots. `from a import b` gives a.b, for b
    may be a module; import_module("a") and __import__("a") count, too."""
    return list(_imported(source))


def _imported(source: str) -> Iterator[tuple[int, str]]:
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


def floor_of(name: str) -> str | None:
    """The floor that a dotted name is on: the longest that it is in; None for the outside world's."""
    return max((floor for floor in FLOORS if within(name, floor)), key=len, default=None)


def experiment_of(module: str) -> str | None:
    """The folder of an experiment that a module is in: pipeline.experiments.toys.experiment -> pipeline.experiments.toys."""
    folder = module.rpartition(".")[0]
    return folder if within(folder, EXPERIMENTS) and folder != EXPERIMENTS else None


def violations(modules: Mapping[str, str]) -> list[str]:
    """A line for each import that goes up, is relative, or brings a package where it does not belong."""
    found = []
    experiments = {folder for module in modules if (folder := experiment_of(module))}
    for module, source in modules.items():
        here = floor_of(module)
        assert here is not None, f"{module} is on no floor: put its folder into FLOORS and docs/design.md"
        for line, name in imported(source):
            there = floor_of(name)
            if name.startswith("."):
                found.append(f"{module}:{line}: {name} is relative")
            elif there is not None and FLOORS.index(there) > FLOORS.index(here):
                found.append(f"{module}:{line}: {name} is above {here}")
            if within(name, "torch") and FLOORS.index(here) <= FLOORS.index(LAST_WITHOUT_TORCH):
                found.append(f"{module}:{line}: {name} in {here}")
            if within(name, "deepspeed") and here not in (ENGINE, "tests"):
                found.append(f"{module}:{line}: {name} outside {ENGINE}")
            others = experiments - {experiment_of(module)} if here == EXPERIMENTS else ()
            found += [f"{module}:{line}: {name} is another experiment" for other in others if within(name, other)]
    return found


def cycle(edges: Mapping[str, set[str]]) -> list[str] | None:
    """Nodes of which each leads to the next and the last to the first, if there are such."""
    done: set[str] = set()

    def look(node: str, path: list[str]) -> list[str] | None:
        if node in path:
            return path[path.index(node) :]
        if node in done:
            return None
        for other in sorted(edges.get(node, ())):
            found = look(other, [*path, node])
            if found:
                return found
        done.add(node)
        return None

    return next((found for node in sorted(edges) if (found := look(node, []))), None)


def file_edges(modules: Mapping[str, str]) -> dict[str, set[str]]:
    """Which modules each module imports, at whatever moment."""
    edges: dict[str, set[str]] = {}
    for module, source in modules.items():
        names = [name for _, name in imported(source)]
        reached = {name if name in modules else name.rpartition(".")[0] for name in names}
        edges[module] = {name for name in reached if name in modules and name != module}
    return edges


def folder_edges(modules: Mapping[str, str]) -> dict[str, set[str]]:
    """The same between folders."""
    folders: dict[str, set[str]] = {}
    for module, reached in file_edges(modules).items():
        here = module.rpartition(".")[0]
        folders.setdefault(here, set()).update({name.rpartition(".")[0] for name in reached} - {here})
    return folders


def test_nothing_imports_upwards() -> None:
    found = violations(sources())
    assert not found, "\n".join(found)


def test_there_is_no_cycle_between_files_or_folders() -> None:
    modules = {name: source for name, source in sources().items() if not within(name, "tests")}
    assert cycle(file_edges(modules)) is None
    assert cycle(folder_edges(modules)) is None


def test_the_tree_in_the_design_page_is_the_real_one() -> None:
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    tree = re.findall(r"^    ([a-z_/]+)/ {2,}\S", page.split("## The tree")[1].split("## ")[0], re.MULTILINE)
    roots = {"preprocessing", "pipeline", "preprocessing.__main__"}  # what knows all of its package
    assert tree == [floor.replace(".", "/") for floor in FLOORS if floor not in roots]
    modules = [module for module in sources() if not within(module, "tests") and experiment_of(module) is None]
    folders = {module.rpartition(".")[0] for module in modules} - roots - {""}
    assert folders == {name.replace("/", ".") for name in tree} - {"tests"}


def test_the_rule_sees_the_whole_repository() -> None:
    modules = sources()
    assert {floor_of(module) for module in modules} == set(FLOORS)
    assert len(modules) > 150
    assert "pipeline.train.trainer" in file_edges(modules)["pipeline.train.start"]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("preprocessing.build.plan", "import torch"),
        ("preprocessing.build.plan", "import numpy, torch.nn as nn"),
        ("preprocessing.build.plan", "def late():\n    from pipeline.config.schema import RunConfig"),
        ("preprocessing.audit.masking", "from pipeline.data.pretraining import PretrainingData"),
        ("preprocessing.base.files", "from preprocessing.corpus import manifest"),
        ("preprocessing.sources.read", "import preprocessing.__main__"),
        ("pipeline.config.schema", "from pipeline.data import batch"),
        ("pipeline.model.encoder", "from pipeline.optim import relative_clip"),
        ("pipeline.checkpoint.writer", "from deepspeed.utils import groups"),
        ("pipeline.checkpoint.writer", "import importlib\nimportlib.import_module('deepspeed')"),
        ("pipeline.checkpoint.writer", "__import__('deepspeed')"),
        ("benchmarks.norms", "import deepspeed"),
        ("slurm.submit", "import deepspeed"),
        ("preprocessing.build.plan", "import preprocessing.__main__"),
        ("pipeline.distributed.launch", "from slurm.site import Site"),
        ("pipeline.model.encoder", "from . import attention"),
        ("pipeline.model.encoder", "from ..config import schema"),
    ],
)
def test_a_violation_is_caught(module: str, source: str) -> None:
    assert violations({module: source})


def test_an_experiment_imports_no_other_and_what_they_share_imports_none() -> None:
    one, other, shared = (f"{EXPERIMENTS}.{name}" for name in ("toys.experiment", "parity.experiment", "found"))
    assert violations({one: f"from {other} import run", other: ""})
    assert violations({one: "", shared: f"from {EXPERIMENTS} import toys"})
    allowed = {one: f"from {EXPERIMENTS}.toys.descent import run\nfrom {shared} import Found", other: "", shared: ""}
    assert violations(allowed) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("preprocessing.build.plan", "import numpy\nfrom preprocessing.corpus.reader import Corpus"),
        ("preprocessing.__main__", "from preprocessing.audit import page\nfrom pipeline.data import pretraining"),
        ("slurm.node_check", "import torch"),
        ("pipeline.data.pretraining", "import torch\nfrom preprocessing.corpus.reader import Corpus"),
        ("pipeline.engine.build", "import deepspeed\nfrom deepspeed.utils import groups"),
        ("pipeline.__main__", "from pipeline.train.start import pretrain"),
        ("tests.pipeline.engine.test_edges", "import deepspeed\nfrom pipeline import engine"),
        ("pipeline.train.loop", "import torchvision_like\nimport deepspeedy"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert violations({module: source}) == []


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        (
            {"pipeline.a": "import pipeline.b", "pipeline.b": "def late():\n    from pipeline import a"},
            ["pipeline.a", "pipeline.b"],
        ),
        ({"p.a": "import p.b", "p.b": "import p.c", "p.c": "import json"}, None),
    ],
)
def test_a_cycle_of_files_is_found(modules: dict[str, str], expected: Sequence[str] | None) -> None:
    assert cycle(file_edges(modules)) == expected


def test_a_cycle_of_folders_is_found_where_files_have_none() -> None:
    modules = {"p.x.a": "import p.y.b", "p.y.b": "", "p.y.c": "import p.x.d", "p.x.d": ""}
    assert cycle(file_edges(modules)) is None
    assert cycle(folder_edges(modules)) == ["p.x", "p.y"]


@pytest.mark.parametrize("package", ["pipeline", "slurm"])
def test_the_command_line_alone_is_light(package: str) -> None:
    """No verb brings at its top what it needs only when it runs: `--help` would take seconds."""
    heavy = "{'torch', 'deepspeed', 'matplotlib'" + (", 'pyarrow'}" if package == "pipeline" else "}")
    program = f"import sys, {package}.__main__; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_ranks_start_leaves_torchs_compiler_out() -> None:
    """Neither a model without storage nor an optimiser brings it: two of a rank's five seconds before its first step."""
    program = """
import sys, torch, pipeline.engine.deepspeed_import
from pipeline.config.schema import RunConfig
from pipeline.model.build import skeleton
optimizer = torch.optim.SGD(skeleton(RunConfig(), 100).parameters(), lr=0.1)
optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
