"""Every file of tests is run: pytest passes over folders of certain names without a word; `build` is in its own list."""

from fnmatch import fnmatch

import pytest

from tests.helpers.running import ROOT


def test_no_folder_of_tests_is_passed_over(request: pytest.FixtureRequest) -> None:
    folders = {folder for file in (ROOT / "tests").rglob("test_*.py") for folder in file.relative_to(ROOT).parents}
    passed_over = request.config.getini("norecursedirs")
    assert not [str(folder) for folder in folders if any(fnmatch(folder.name, pattern) for pattern in passed_over)]
