"""A run directory is one run's, trained by one job at a time; starting over puts the old one aside and deletes nothing."""

import errno
import json
import multiprocessing
from pathlib import Path

import pytest

from pipeline.config.load import as_dict, load_recipe
from pipeline.run.directory import archive_run, check_run, check_same, lock, open_run
from tests.helpers.ranks import WITHOUT_REPORT, Death, RankServer
from tests.helpers.running import SMALL, set_options

WANTED = {"recipe": "tiny", "data": "/d", "corpus_sha256": "c", "tokenizer_sha256": "t", "config": {}}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def test_fresh_puts_every_earlier_run_aside_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    for number in range(3):
        open_run(run, {**WANTED, "data": str(number)}, fresh=True).close()
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / "weights").write_text(str(number))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.1", "run.2"]
    assert [(tmp_path / name / "checkpoints/weights").read_text() for name in ("run.1", "run.2", "run")] == ["0", "1", "2"]
    assert f"is {run}.2 now" in capsys.readouterr().out


def test_fresh_refuses_what_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1").write_text("words")
    with pytest.raises(ValueError, match="not a run directory"):
        open_run(tmp_path / "thesis", WANTED, fresh=True)
    assert contents(tmp_path) == {"thesis/chapter1": b"words"}


def test_fresh_on_what_cannot_be_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount point, or a parent that may not be written to."""
    run = tmp_path / "run"
    open_run(run, WANTED).close()

    def rename(self: Path, target: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", str(self), None, str(target))

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(ValueError, match=rf"^--fresh cannot put {run} aside as {run}.1: Device or resource busy; give another"):
        open_run(run, WANTED, fresh=True)
    monkeypatch.setattr("os.path.ismount", lambda path: True)
    with pytest.raises(ValueError, match="a mount point cannot be renamed; give another --run"):
        open_run(run, WANTED, fresh=True)
    assert (run / "config.json").is_file()


@pytest.mark.parametrize("older", [("there",), ("here",), ("there", "here")])
def test_a_setting_that_is_newer_than_a_file_has_its_default_there(older: tuple[str, ...]) -> None:
    """In a checkpoint's file and in config.json alike: an earlier version's run is still evaluated, fine-tuned and exported."""
    config = as_dict(load_recipe("tiny", SMALL[1::2]))
    without = {
        **config,
        "model": {key: value for key, value in config["model"].items() if key not in ("gradinit", "init_tokens")},
    }
    there, here = ({**WANTED, "config": without if name in older else config} for name in ("there", "here"))
    check_same(there, here, Path("checkpoint"), "remedy")
    other = {**here, "config": {**here["config"], "model": {**config["model"], "init_tokens": 5}}}
    with pytest.raises(ValueError, match=r"model.init_tokens is 4096 there, 5 here"):
        check_same(there, other, Path("checkpoint"), "remedy")


def hold(run: Path, ready: "multiprocessing.synchronize.Event") -> None:
    with lock(run):
        ready.set()
        multiprocessing.Event().wait()


def test_a_run_is_one_jobs_until_its_process_is_gone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    open_run(run, WANTED).close()
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=hold, args=(run, ready))
    holder.start()
    assert ready.wait(60)
    with pytest.raises(ValueError, match=f"is being trained by another process .process {holder.pid} on "):
        lock(run, wait_s=0)
    with pytest.raises(ValueError, match="is being trained"):
        archive_run(run)
    holder.kill()
    lock(run, wait_s=60).close()  # waits for the end of a process that has just been killed
    holder.join()


def test_fresh_begins_anew_and_a_requeued_job_goes_on(rank_server: RankServer, corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = [*SMALL, *set_options(train__checkpoint_every_steps=2, train__steps=8)]
    arguments = ["pretrain", "--recipe", "tiny", "--data", corpus, "--run", run, *options]
    assert rank_server.run(arguments, die=Death(0, "step", 8), skip=WITHOUT_REPORT).codes == [-9]
    before = contents(run)
    started = rank_server.run([*arguments, "--fresh", "--set", "optim.lr=0.1"], die=Death(0, "step", 6), skip=WITHOUT_REPORT)
    assert "going on" not in started.stdout
    assert contents(tmp_path / "run.1") == before
    for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"):
        again = [*arguments, "--fresh", "--set", "optim.lr=0.1"]
        resumed = rank_server.run(again, env={name: "1"}, die=Death(0, "step", 3), skip=WITHOUT_REPORT)
        assert "going on from step" in resumed.stdout
    assert not (tmp_path / "run.2").exists()


def test_the_rhythm_the_micro_batch_and_the_stage_may_change(rank_server: RankServer, corpus: Path, tmp_path: Path) -> None:
    options = [*SMALL, *set_options(train__checkpoint_every_steps=2, train__steps=8)]
    arguments = ["pretrain", "--recipe", "tiny", "--data", corpus, "--run", tmp_path / "run", *options]
    assert rank_server.run(arguments, die=Death(0, "step", 6), skip=WITHOUT_REPORT).codes == [-9]
    changed = set_options(
        train__checkpoint_every_steps=3,
        train__log_every_steps=2,
        train__keep_last_checkpoints=1,
        train__timeout_s=100,
        batch__micro_sequences=8,
        train__ds_config="zero2",
    )
    resumed = rank_server.run([*arguments, *changed], skip=WITHOUT_REPORT)
    assert resumed.codes == [0], resumed.stderr
    assert "going on from step" in resumed.stdout
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == ["latest", "step-00000008"]
    refused = rank_server.run([*arguments, *set_options(train__steps=9)])
    assert refused.codes == [2]
    assert "train.steps is 8 there, 9 here" in refused.stderr


def test_the_remedy_fits_what_is_different(tmp_path: Path) -> None:
    wanted = {**WANTED, "config": as_dict(load_recipe("tiny", []))}
    open_run(tmp_path / "run", wanted).close()
    with pytest.raises(ValueError, match=r"corpus_sha256 is 'c' there, 'e' here; .*the corpus that it was begun with \(/d\)"):
        check_run(tmp_path / "run", {**wanted, "corpus_sha256": "e", "data": "/e"})
    other = {**wanted, "config": as_dict(load_recipe("tiny", ["train.seed=7"])), "corpus_sha256": "e"}
    with pytest.raises(ValueError, match=r"train.seed is \d+ there, 7 here; .*the same settings"):
        check_run(tmp_path / "run", other)
    check_run(tmp_path / "run", {**wanted, "data": "/elsewhere"})


def test_fresh_on_nothing_and_on_a_link(tmp_path: Path) -> None:
    """A directory that holds a lock alone is a start that was killed; behind a link its target is put aside, not the link."""
    for name in ("empty", "killed"):
        (tmp_path / name).mkdir()
    (tmp_path / "killed" / ".lock").write_text("process 1 on here")
    for name in ("empty", "killed", "new"):
        open_run(tmp_path / name, WANTED, fresh=True).close()
        assert (tmp_path / name / "config.json").is_file()
    big, link = tmp_path / "big", tmp_path / "link"
    open_run(big, WANTED).close()
    link.symlink_to(big)
    open_run(link, {**WANTED, "data": "/new"}, fresh=True).close()
    assert link.is_symlink()
    assert json.loads((big / "config.json").read_text())["data"] == "/new"
    assert json.loads((tmp_path / "big.1" / "config.json").read_text())["data"] == "/d"


def test_a_history_that_lacks_its_end_makes_no_summary(rank_server: RankServer, corpus: Path, tmp_path: Path) -> None:
    """Figures of an earlier step must not stand as the final ones."""
    run = tmp_path / "run"
    options = [*SMALL, *set_options(train__steps=8, train__eval_every_steps=4)]
    arguments = ["pretrain", "--recipe", "tiny", "--data", corpus, "--run", run, *options]
    assert rank_server.run(arguments, skip=WITHOUT_REPORT).codes == [0]
    (run / "summary.json").unlink()
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:-2]))
    again = rank_server.run(arguments, skip=WITHOUT_REPORT)
    assert again.codes == [2]
    assert "the end of the run's history is lost" in again.stderr
    assert not (run / "summary.json").exists()
