"""The library that reads exports."""

from collections.abc import Iterator
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def transformers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The library, with a cache for remote code of its own and without the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        import transformers as library

        library.logging.set_verbosity_error()
        library.logging.disable_progress_bar()
        yield library
