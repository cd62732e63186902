"""`python -m pipeline checkpoint`, called in this process on a small run that a Saver wrote."""

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from pipeline.__main__ import main
from pipeline.checkpoint.writer import Kept, Saver
from pipeline.distributed.ranks import ALONE

STEPS = (10, 20, 30, 40)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    saver = Saver(run, ALONE, Kept())
    for step in STEPS:
        manifest = {
            "world_size": 1,
            "zero_stage": 1,
            "precision": "fp32",
            "saved_at": "2026-01-01T00:00:00+00:00",
            "made_from": {"config": {"model": {"width": 2}}, "corpus_sha256": "c", "tokenizer_sha256": "t"},
            "progress": {},
            "parameters": {"w": [2, 3]},
        }
        saver.start(step, {"param|w|0": torch.arange(6.0) + step}, manifest)
        saver.give_probe({"x": torch.ones(1)}, torch.tensor(1.0))
    assert saver.wait() is not None
    return run


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def damage(run: Path, step: int) -> None:
    shard = run / f"checkpoints/step-{step:08d}/rank-00000-of-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)


def test_list_and_verify_say_what_is_there(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(run, 40)
    shutil.rmtree(run / "checkpoints/step-00000020")
    (run / "checkpoints/step-00000020").mkdir()
    assert main(["checkpoint", "list", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["step", "40", "30", "20", "10"]
    assert "whole" in lines[1], "list looks at sizes alone"
    assert "NOT VALID" in lines[3]
    assert "no manifest.json" in lines[3]
    assert lines[2].split()[3:6] == ["1", "1", "fp32"]
    assert main(["checkpoint", "verify", str(run / "checkpoints")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "sha256 is not the manifest's" in lines[1]
    assert lines[2].endswith("valid")


def test_verify_of_a_whole_run_exits_with_0_and_a_dangling_latest_is_said(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["checkpoint", "verify", str(run)]) == 0
    (run / "checkpoints/latest").write_text("step-00000077")
    assert main(["checkpoint", "list", str(run)]) == 0
    assert "latest names 'step-00000077', which is not there" in capsys.readouterr().out


def test_convert_gives_whole_tensors_that_say_where_they_come_from(run: Path, tmp_path: Path) -> None:
    assert main(["checkpoint", "convert", str(run), "--out", str(tmp_path / "m.safetensors")]) == 0
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        assert torch.equal(file.get_tensor("w"), (torch.arange(6.0) + 40).view(2, 3))
        assert file.metadata()["step"] == "40"
        assert json.loads(file.metadata()["config"]) == {"model": {"width": 2}}
    assert main(["checkpoint", "convert", str(run), "--step", "10", "--out", str(tmp_path / "n.safetensors")]) == 0
    with safe_open(tmp_path / "n.safetensors", framework="pt") as file:
        assert file.get_tensor("w")[0, 0] == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.safetensors", "n.safetensors", "run"]


def test_what_is_converted_is_for_others_too(run: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        assert main(["checkpoint", "convert", str(run), "--out", str(tmp_path / "m.safetensors")]) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "m.safetensors").stat().st_mode) == 0o640


def test_convert_refuses_in_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").write_text("mine")
    damage(run, 30)
    for arguments, words in (
        (["--out", str(tmp_path / "there")], "exists: give a new name"),
        (["--out", str(tmp_path / "no" / "m")], "no directory"),
        (["--out", str(tmp_path / "m"), "--step", "11"], "has no checkpoint of step 11"),
        (["--out", str(tmp_path / "m"), "--step", "30"], "sha256 is not the manifest's"),
    ):
        assert main(["checkpoint", "convert", str(run), *arguments]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    assert (tmp_path / "there").read_text() == "mine"
    assert not (tmp_path / "m").exists()


def test_prune_keeps_whole_ones_and_leaves_broken_ones_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(run, 40)
    before = names(run)
    assert main(["checkpoint", "prune", str(run), "--keep-last", "1", "--keep-every", "20", "--dry-run"]) == 0
    assert names(run) == before
    assert "would delete" in capsys.readouterr().out
    assert main(["checkpoint", "prune", str(run), "--keep-last", "1", "--keep-every", "20"]) == 0
    assert names(run) == ["latest", "step-00000020", "step-00000030", "step-00000040"]
    assert main(["checkpoint", "prune", str(run), "--keep-last", "3"]) == 0
    assert "nothing to delete" in capsys.readouterr().out
    assert main(["checkpoint", "prune", str(run), "--keep-last", "0"]) == 2


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for action in ("list", "verify"):
        assert main(["checkpoint", action, str(tmp_path)]) == 2
        assert "no checkpoints/ in it" in capsys.readouterr().err
    (tmp_path / "checkpoints").mkdir()
    assert main(["checkpoint", "list", str(tmp_path)]) == 2
    assert "has no checkpoint" in capsys.readouterr().err


def test_a_full_disk_leaves_no_half_conversion(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", disk], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        (disk / "filler").write_bytes(os.urandom(4096))
        assert main(["checkpoint", "convert", str(run), "--out", str(disk / "m.safetensors")]) == 2
        assert "No space left" in capsys.readouterr().err
        assert [path.name for path in disk.iterdir()] == ["filler"]
    finally:
        subprocess.run(["umount", disk], check=True)
