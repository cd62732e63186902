"""The tasks' files, and a pretrained run. To be read only."""

from pathlib import Path

import pytest

from tests.helpers.finetuning import PRETRAINING
from tests.helpers.ranks import WITHOUT_REPORT, RankServer
from tests.helpers.running import set_options
from tests.helpers.side_by_side import made_once
from tests.helpers.task_files import write_tasks


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="session")
def pretrained(rank_server: RankServer, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        words = ["pretrain", "--recipe", "tiny", "--data", corpus, "--run", folder / "run", *PRETRAINING]
        words += set_options(model__positions="learned")
        done = rank_server.run(words, 1, skip=WITHOUT_REPORT)
        assert done.codes == [0], done.stderr

    return made_once(tmp_path_factory, "pretrained", make) / "run"
