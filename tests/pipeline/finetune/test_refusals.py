"""What cannot be fine-tuned is refused in one line, before anything is trained or left behind."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.finetuning import words
from tests.helpers.ranks import Failure, RankServer
from tests.helpers.running import set_options


def test_a_recipe_of_fine_tuning_is_not_pretrained(call: Callable[..., Any], corpus: Path, tmp_path: Path) -> None:
    line = call("pretrain", "--recipe", "finetune/mnli", "--data", corpus, "--run", tmp_path / "run", "--dry-run")[2]
    assert "is of mnli: `python -m pipeline finetune` takes it" in line


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--set", "train.steps=5"], "follows from task.epochs"),
        (["--set", "model.width=64"], "the model is the pretrained run's"),
        (["--set", "data.seq_len=384"], "the run has 96 positions"),
        (["--recipe", "finetune/squad1"], "is of squad1, not of --task squad2"),
        (["--recipe", "tiny"], "is of pretraining, not of --task squad2"),
        (["--recipe", "finetune/squadd"], "no recipe"),
        (["--seeds", "0"], "--seeds 0"),
    ],
)
def test_a_bad_option(
    call: Callable[..., Any], pretrained: Path, data: Path, tmp_path: Path, options: list[str], line: str
) -> None:
    code, _, error = call(*words("finetune", "squad2", pretrained, data, tmp_path / "out", *options))
    assert code == 2
    assert line in error
    assert not (tmp_path / "out").exists()


def test_data_that_cannot_be_used_leave_nothing(rank_server: RankServer, pretrained: Path, data: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(data, tmp_path / "data"))
    shutil.copy(folder / "dev-v1.0.json", folder / "dev-v2.0.json")
    done = rank_server.run(words("finetune", "squad2", pretrained, folder, tmp_path / "out"), 2)
    assert done.codes == [2, 2]
    assert done.stderr.count("this is SQuAD 1.1") == 1
    assert not (tmp_path / "out").exists()


def test_ranks_with_folders_of_their_own_do_not_train(
    rank_server: RankServer, pretrained: Path, data: Path, tmp_path: Path
) -> None:
    """As two nodes without a shared file system have them: the same word is another place."""
    for rank in (0, 1):
        (tmp_path / f"node-{rank}").mkdir()
    out = tmp_path / "node-%RANK%" / "out"
    done = rank_server.run([*words("finetune", "mnli", pretrained, data, out), *set_options(train__timeout_s=20)], 2)
    assert done.codes == [2, 2]
    assert done.stderr.count("it must lie on a file system that all nodes share") == 1
    assert not list(tmp_path.glob("node-0/out/mnli/*/checkpoints/*"))


def test_a_model_that_cannot_fit_is_refused_before_anything_is_read(
    rank_server: RankServer, pretrained: Path, tmp_path: Path
) -> None:
    """Neither a checkpoint nor data are there: their lack is not what is said."""
    saved = json.loads((pretrained / "config.json").read_text())
    saved["config"]["model"] |= {"layers": 100, "width": 65536, "ffn_width": 65536}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(saved))
    done = rank_server.run(words("finetune", "mnli", tmp_path / "run", tmp_path / "none", tmp_path / "out"), 2)
    assert done.codes == [2, 2]
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert "before any activation, and this machine" in lines[0]
    assert "choose a higher ZeRO stage (--set train.ds_config=zero3) or more ranks" in lines[0]
    assert not (tmp_path / "out").exists()


def test_what_a_save_needs_is_tried_before_the_training(
    rank_server: RankServer, pretrained: Path, data: Path, tmp_path: Path
) -> None:
    """Checkpoints on another disk, which is full or forbids what a save does: not found out at the first save."""
    refused = Failure("all", "pipeline.train.place:try_to_write", count=1, errno="EACCES")
    done = rank_server.run(words("finetune", "mnli", pretrained, data, tmp_path / "out"), 2, fail=refused)
    assert done.codes == [2, 2]
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "out" / "mnli" / "seed-0" / "metrics.jsonl").exists()
