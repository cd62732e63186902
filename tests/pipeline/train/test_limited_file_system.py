"""What a save needs is tried at the start: what is harmless to miss is said and survived, the rest is refused with its path."""

import errno
from pathlib import Path

from pipeline.checkpoint.layout import step_directory
from tests.helpers.ranks import WITHOUT_REPORT, Failure, RankServer
from tests.helpers.running import SMALL, set_options

LIMITED = "tests.pipeline.train.limited_file_system"


def pretrain(run: Path, corpus: Path) -> list[str | Path]:
    brief = set_options(train__steps=4, train__checkpoint_every_steps=2, train__eval_every_steps=4)
    return ["pretrain", "--recipe", "tiny", "--data", corpus, "--run", run, *SMALL, *brief]


def test_a_file_system_without_fsync_of_directories_and_without_modes(
    rank_server: RankServer, corpus: Path, tmp_path: Path
) -> None:
    ranks = rank_server.run(pretrain(tmp_path / "run", corpus), ranks=1, skip=WITHOUT_REPORT, program=LIMITED)
    assert ranks.codes == [0], ranks.stderr
    checkpoints = tmp_path / "run" / "checkpoints"
    assert f"{checkpoints}: its file system offers no fsync of a directory (Invalid argument)" in ranks.stdout
    assert f"{checkpoints}: its file system offers no change of a file's mode (Operation not permitted)" in ranks.stdout
    assert step_directory(tmp_path / "run", 4).is_dir()
    assert "ALARM" not in ranks.stdout
    converted = rank_server.run(
        ["checkpoint", "convert", tmp_path / "run", "--out", tmp_path / "w.safetensors"], program=LIMITED
    )
    assert converted.codes == [0], converted.stderr
    assert (tmp_path / "w.safetensors").stat().st_size > 1000


def test_a_file_system_without_rename_is_refused_with_its_path(rank_server: RankServer, corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = pretrain(run, corpus)
    died = rank_server.run(arguments, ranks=1, fail=Failure("all", "os:rename", count=4, errno="EXDEV"), skip=WITHOUT_REPORT)
    assert died.codes == [2]
    lines = died.stderr.strip().splitlines()
    assert len(lines) == 1, died.stderr
    assert str(run / "checkpoints") in lines[0], lines
    assert str(errno.EXDEV) in lines[0] or "cross-device" in lines[0]
    assert not list((run / "checkpoints").iterdir())
