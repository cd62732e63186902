"""Whatever is larger than usual has its reason in docs/design.md: files, and classes by their attributes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.running import ROOT
from tests.test_imports import PACKAGES

MOST_LINES = 300
MOST_ATTRIBUTES = 10


def files() -> list[Path]:
    """Every file of Python in the repository."""
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def attributes(node: ast.ClassDef) -> set[str]:
    """Those that the class annotates, and those that its methods assign to self."""
    fields = {part.target.id for part in node.body if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)}
    stores = (part for part in ast.walk(node) if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store))
    return fields | {part.attr for part in stores if isinstance(part.value, ast.Name) and part.value.id == "self"}


def large_classes(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and len(attributes(node)) > MOST_ATTRIBUTES:
            yield node.name


def table_rows(heading: str) -> list[tuple[list[str], str]]:
    """(what is in code marks, why) of each row of the design page's table whose first cell is this heading."""
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    lines = page.split(f"\n| {heading} | why |\n")[1].split("\n\n")[0].splitlines()[1:]
    return [(re.findall(r"`([^`]+)`", line.split("|")[1]), line.split("|")[2].strip()) for line in lines]


def with_reasons(heading: str) -> list[str]:
    rows = table_rows(heading)
    assert all(why for _, why in rows)
    return sorted(name for names, _ in rows for name in names)


def test_files_of_more_than_300_lines_have_a_reason() -> None:
    long = [path for path in files() if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES]
    assert with_reasons("file") == [path.relative_to(ROOT).as_posix() for path in long]


def test_classes_of_more_than_ten_attributes_have_a_reason() -> None:
    assert with_reasons("class") == sorted(name for path in files() for name in large_classes(path.read_text(encoding="utf-8")))


def test_attributes_are_counted_however_they_are_made() -> None:
    ten = "\n".join(f"    a{number}: int = 0" for number in range(10))
    method = "    def f(self):\n        self.{} = 0\n        other.b = 0"
    assert list(large_classes(f"class C:\n{ten}\n{method.format('a0')}")) == []
    assert list(large_classes(f"class C:\n{ten}\n{method.format('b')}")) == ["C"]
