"""Saving beside the training: whole or not at all, in the right order, and how many are kept. One process, small tensors."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.checkpoint.reader import Checkpoint
from pipeline.checkpoint.retention import surplus
from pipeline.checkpoint.snapshot import rng_states, set_rng_states
from pipeline.checkpoint.writer import Kept, Saved, Saver, told
from pipeline.distributed.ranks import ALONE
from preprocessing.base.files import WRITING, temporary_name


def test_a_save_is_whole_in_another_reader_and_keeps_what_it_is_told_to(tmp_path: Path) -> None:
    """safetensors' own reader agrees with what was handed in, while the tensor has already changed."""
    (tmp_path / "checkpoints").mkdir()
    saver = Saver(tmp_path, ALONE, Kept(last=2, every_steps=4))
    weights = torch.zeros(1000)
    for step in range(1, 10):
        weights.fill_(step)
        before = saver.start(step, {"param|w|0": weights}, {"world_size": 1})
        saver.give_probe({"x": torch.ones(2)}, torch.tensor(1.0))
        weights.fill_(-1)  # training goes on
        assert step == 1 or (before is not None and before.problem is None and before.step == step - 1)
    last = saver.wait()
    assert last is not None
    assert last.problem is None
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["latest", "step-00000004", "step-00000008", "step-00000009"]
    for step in (4, 8, 9):
        shard = tmp_path / f"checkpoints/step-{step:08d}/rank-00000-of-00001.safetensors"
        assert torch.equal(load_file(shard)["param|w|0"], torch.full((1000,), float(step)))
    assert (tmp_path / "checkpoints/latest").read_text() == "step-00000009\n"


@pytest.mark.parametrize(
    ("steps", "last", "every", "gone"),
    [
        ([1, 2, 3], 0, 0, []),
        ([3, 1, 2], 1, 0, [1, 2]),
        ([10, 20, 30, 40, 45], 2, 20, [10, 30]),
        ([10], 5, 0, []),
        ([], 1, 1, []),
    ],
)
def test_retention(steps: list[int], last: int, every: int, gone: list[int]) -> None:
    assert surplus(steps, last, every) == gone


def test_retention_refuses_negative_numbers() -> None:
    with pytest.raises(ValueError, match="from 0 up"):
        surplus([1], -1, 0)


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No kill can show a missing fsync, since the page cache survives it: so the order of the calls is looked at."""
    (tmp_path / "checkpoints").mkdir()
    calls: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(descriptor: int) -> None:
        calls.append(("fsync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def noted_rename(source: Path, target: Path) -> None:
        calls.append(("rename", Path(target).name))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    saver = Saver(tmp_path, ALONE, Kept())
    saver.start(7, {"param|w|0": torch.ones(3)}, {"world_size": 1})
    saver.give_probe({"x": torch.ones(1)}, torch.tensor(1.0))
    assert saver.wait() == Saved(7, None, None)
    named = calls.index(("rename", "step-00000007"))
    synced = [name for call, name in calls[:named] if call == "fsync"]
    files = [
        temporary_name(Path(name)).name for name in ("rank-00000-of-00001.safetensors", "probe.safetensors", "manifest.json")
    ]
    assert set(files) <= set(synced)
    assert synced[-1] == ".writing-step-00000007", "the names in the directory, last of all"
    assert calls[named + 1] == ("fsync", "checkpoints"), "its own name"
    latest = calls.index(("rename", "latest"))
    assert calls[latest - 1] == ("fsync", temporary_name(Path("latest")).name)
    assert calls[latest + 1] == ("fsync", "checkpoints")
    assert latest > named


def test_a_failed_save_leaves_nothing_and_the_next_one_has_its_own_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe of a save that failed before it was asked for must not become the next one's."""
    (tmp_path / "checkpoints").mkdir()
    saver = Saver(tmp_path, ALONE, Kept())
    manifest = {"world_size": 1, "zero_stage": 1, "saved_at": "", "made_from": {}, "progress": {}, "parameters": {"w": [3]}}
    with monkeypatch.context() as patched:
        patched.setattr(
            "pipeline.checkpoint.tensor_file.save_file", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left"))
        )
        saver.start(1, {"param|w|0": torch.ones(3)}, manifest)
        saver.give_probe({"x": torch.ones(1)}, torch.tensor(1.0))
        failed = saver.wait()
    assert failed is not None
    assert failed.problem is not None
    assert "No space left" in failed.problem
    assert not list((tmp_path / "checkpoints").iterdir())
    saver.start(2, {"param|w|0": torch.ones(3)}, manifest)
    saver.give_probe({"x": torch.ones(1)}, torch.tensor(2.0))
    assert saver.wait() == Saved(2, None, None)
    assert Checkpoint(tmp_path / "checkpoints/step-00000002").manifest["probe"] == {"loss": 2.0}


def test_random_generators_go_on_where_they_were(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    saver, cpu = Saver(tmp_path, ALONE, Kept()), torch.device("cpu")
    manifest = {"world_size": 1, "zero_stage": 1, "saved_at": "", "made_from": {}, "progress": {}, "parameters": {}}
    torch.manual_seed(3)
    torch.rand(5)
    saver.start(1, rng_states(cpu), manifest)
    saver.give_probe({"x": torch.ones(1)}, torch.tensor(1.0))
    saver.wait()
    expected = torch.rand(5)
    found = Checkpoint(tmp_path / "checkpoints/step-00000001")
    set_rng_states(found.rng_states(0, 1), cpu)
    assert torch.equal(torch.rand(5), expected)
    assert found.rng_states(0, 2) == {}, "other ranks, other generators"


def test_a_damaged_newer_one_does_not_push_a_whole_one_out(tmp_path: Path) -> None:
    """The resume passed step 8 over and went on from step 4; the user kept one."""
    (tmp_path / "checkpoints" / "step-00000008").mkdir(parents=True)
    saver = Saver(tmp_path, ALONE, Kept(last=1))
    for step in (4, 6):
        saver.start(step, {"param|w|0": torch.ones(3)}, {"world_size": 1})
        saver.give_probe({"x": torch.ones(1)}, torch.tensor(1.0))
        assert saver.wait() == Saved(step, None, None)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["latest", "step-00000006", "step-00000008"]


def test_what_a_killed_process_left_half_written_goes_with_the_next_save(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / ".writing-step-00000003").mkdir(parents=True)
    (tmp_path / "checkpoints" / f"latest{WRITING}another-host-7").write_text("step-0")
    saver = Saver(tmp_path, ALONE, Kept())
    saver.start(4, {"param|w|0": torch.ones(3)}, {"world_size": 1})
    saver.give_probe({"x": torch.ones(1)}, torch.tensor(1.0))
    assert saver.wait() == Saved(4, None, None)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["latest", "step-00000004"]


def test_weights_with_a_loss_that_is_no_number_are_not_kept(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    saver = Saver(tmp_path, ALONE, Kept())
    saver.start(4, {"param|w|0": torch.ones(3)}, {"world_size": 1})
    saver.give_probe({"x": torch.ones(1)}, torch.tensor(float("nan")))
    saved = saver.wait()
    assert saved is not None
    assert "loss with these weights is nan" in str(saved.problem)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_every_error_of_a_writer_reaches_the_other_ranks() -> None:
    def no_memory() -> None:
        raise MemoryError("2 GB")

    with pytest.raises(ValueError, match="MemoryError: 2 GB"):
        ALONE.together(told(no_memory))


def test_a_save_that_fails_before_its_probe_is_told_after_it(tmp_path: Path) -> None:
    """RUN/checkpoints is gone: the writer has ended before the next forward pass, when training asks how it went."""
    saver = Saver(tmp_path, ALONE, Kept())
    saver.start(1, {"param|w|0": torch.ones(3)}, {"world_size": 1})
    assert saver._thread is not None
    saver._thread.join()
    assert saver.finished() is None
    saver.give_probe({"x": torch.ones(1)}, torch.tensor(1.0))
    told_now = saver.finished()
    assert told_now is not None
    assert "No such file or directory" in str(told_now.problem)
    assert saver.finished() is None, "once"
    assert not list(tmp_path.iterdir()), "nothing is written where a file system was"
