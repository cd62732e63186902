"""A corpus of numbered tokens."""

from typing import Any

import pytest

from tests.helpers.numbered_corpora import DOCUMENTS, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return write_corpus(tmp_path_factory.mktemp("corpus"), DOCUMENTS)
