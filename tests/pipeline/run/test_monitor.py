"""What the monitor writes can be read back, whatever interrupted the writing."""

import io
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.run import metrics_file, monitor
from pipeline.run.metrics_file import read_metrics
from pipeline.run.monitor import Monitor
from tests.helpers.running import worker_environment

RECORD = {
    "loss": 8.25, "lr": 0.5, "head_lr": 0.1, "param_norm": 31.5, "grad_norm": 1.75, "clip_threshold": 2.5,
    "clipped_fraction": 0.0125, "tokens": 4096, "tokens_per_s": 21_000.4,
}  # fmt: skip


class Clock:
    """time.monotonic under the test's hand."""

    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(monitor, "time", clock)
    return clock


def test_records_come_back_by_kind_and_step(tmp_path: Path) -> None:
    m = Monitor(tmp_path, total_steps=20, attempt=3, interactive=False)
    m.train({"step": 10, **RECORD})
    m.evaluate({"step": 10, "heldout_loss": 7.5, "heldout_mask_loss": 7.75})
    m.train({"step": 20, **RECORD, "loss": 8.0})
    m.close()
    m.close()
    train, evaluation = read_metrics(tmp_path / "metrics.jsonl")
    assert train[0] == {"kind": "train", "attempt": 3, "step": 10, **RECORD}
    assert [row["loss"] for row in train] == [8.25, 8.0]
    assert evaluation == [
        {"kind": "eval", "attempt": 3, "step": 10, "heldout_loss": 7.5, "heldout_mask_loss": 7.75}
    ]  # fmt: skip


def test_a_record_is_on_disk_before_close(tmp_path: Path) -> None:
    m = Monitor(tmp_path, 20, 1, interactive=False)
    m.train({"step": 1, **RECORD})
    assert len(read_metrics(tmp_path / "metrics.jsonl")[0]) == 1
    m.close()


def test_the_file_is_strict_json(tmp_path: Path) -> None:
    m = Monitor(tmp_path, 20, 1, interactive=False)
    values = {"a": math.nan, "b": math.inf, "c": np.float32(0.5), "d": torch.tensor(0.25), "e": [1.0, -math.inf],
              "f": {"g": np.float64("nan")}, "h": None, "i": True, "j": np.int64(7)}  # fmt: skip
    m.train({"step": np.int64(1), **values})
    m.close()
    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert {key: row[key] for key in ("step", *values)} == {
        "step": 1, "a": None, "b": None, "c": 0.5, "d": 0.25, "e": [1.0, None], "f": {"g": None}, "h": None, "i": True,
        "j": 7,
    }  # fmt: skip


def test_a_record_without_a_step_is_refused_and_not_written(tmp_path: Path) -> None:
    m = Monitor(tmp_path, 20, 1, interactive=False)
    for record in ({"loss": 1.0}, {"step": 1.5}, {"step": True}, {"step": None}):
        with pytest.raises(ValueError, match="a train record needs an integer `step`"):
            m.train(record)
    m.close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_the_later_line_of_a_repeated_step_wins(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    steps = [(1, "a"), (3, "a"), (5, "a"), (3, "b"), (2, "b")]
    path.write_text("".join(f'{{"kind": "train", "step": {step}, "x": "{x}"}}\n' for step, x in steps))
    train, evaluation = read_metrics(path)
    assert [(row["step"], row["x"]) for row in train] == [(1, "a"), (2, "b"), (3, "b"), (5, "a")]
    assert evaluation == []


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_torn_end_costs_the_torn_record_alone(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    rows = [{"kind": "train", "attempt": 1, "step": step, "loss": 1 / 3, "note": "η"} for step in (1, 2, 3)]
    lines = [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows]
    content = b"".join(lines)
    cut = data.draw(st.integers(0, len(content)))
    path = tmp_path_factory.mktemp("torn") / "metrics.jsonl"
    path.write_bytes(content[:cut])
    # A record is whole once its closing brace is there, with or without the newline.
    whole = sum(cut >= len(b"".join(lines[: i + 1])) - 1 for i in range(3))
    assert read_metrics(path)[0] == rows[:whole]
    metrics_file.drop_torn_line(path)
    with path.open("a") as file:
        file.write('{"kind": "train", "step": 9}\n')
    assert read_metrics(path)[0] == [*rows[:whole], {"kind": "train", "step": 9}]


def test_reopening_a_torn_file_starts_on_a_fresh_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "train", "step": 10, "loss": 5.0}\n{"kind": "train", "st')
    m = Monitor(tmp_path, 20, 2, interactive=False, first_step=10)
    m.train({"step": 20, "loss": 4.0})
    m.close()
    assert [(row["step"], row["loss"]) for row in read_metrics(path)[0]] == [(10, 5.0), (20, 4.0)]


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "1", "\udc80", '{"step": 2}',
     '{"kind": "train"}', '{"kind": "train", "step": "2"}', '{"kind": "test", "step": 2}',
     '{"kind": "train", "step": 2, "loss": NaN}', '{"kind": "train", "step": true}'],
)  # fmt: skip
def test_any_other_broken_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    good = '{"kind": "train", "step": 1}'
    for text in (f"{good}\n{line}\n{good}\n", f"{good}\n{line}\n"):
        path.write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: not a metrics record"):
            read_metrics(path)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_metrics(tmp_path / "metrics.jsonl")


def test_tensorboard_has_the_scalars_once_after_a_resume(tmp_path: Path) -> None:
    first = Monitor(tmp_path, 30, 1, interactive=False)
    for step, loss in ((10, 8.0), (20, 7.0)):
        first.train({"step": step, **RECORD, "loss": loss, "temperature": 0.5, "bad": math.nan, "text": "x"})
    first.evaluate({"step": 20, "heldout_loss": 7.25})
    first.close()
    (board_file,) = (tmp_path / "tensorboard").iterdir()  # two files of one second may be named in the wrong order: …9, …10
    board_file.rename(board_file.with_name(board_file.name.replace("tfevents.", "tfevents.0")))
    second = Monitor(tmp_path, 30, 2, interactive=False, first_step=10)  # the checkpoint was of step 10
    for step, loss in ((20, 6.5), (30, 6.0)):
        second.train({"step": step, **RECORD, "loss": loss})
    second.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("loss/train")] == [(10, 8.0), (20, 6.5), (30, 6.0)]
    tags = set(board.Tags()["scalars"])
    assert {"norm/param", "norm/gradient", "clip/threshold", "clip/fraction", "learning_rate/encoder"} <= tags
    assert "other/train_temperature" in tags
    assert not {"other/train_bad", "other/train_text", "other/train_attempt"} & tags


def test_lines_are_few_and_aligned(tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    m = Monitor(tmp_path, 1000, 1, interactive=False)
    for step in range(1, 1001):
        clock.now_s += 0.1
        m.train({"step": step, **RECORD})
    m.close()
    header, *lines = capsys.readouterr().out.splitlines()
    assert 20 <= len(lines) <= 22
    assert {len(line) for line in lines} == {len(header)}
    assert header.split() == ["step", "loss", "lr", "‖x‖", "‖g‖", "threshold", "clipped", "tokens/s", "ETA"]
    assert lines[0].split() == ["1", "8.2500", "0.5", "31.5", "1.75", "2.5", "1.2%", "21,000", "0:01:40"]
    assert lines[-1].split()[0] == "1,000"
    assert lines[-1].split()[-1] == "0:00:00"


def test_a_fast_run_is_not_a_flood_and_a_slow_one_not_silent(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    m = Monitor(tmp_path / "fast", 100, 1, interactive=False)
    for step in range(1, 101):
        clock.now_s += 0.01
        m.train({"step": step, **RECORD})
    m.close()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["step", "1", "100"]
    m = Monitor(tmp_path / "slow", 1_000_000, 1, interactive=False)
    for step in range(1, 61):
        clock.now_s += 10
        m.train({"step": step, **RECORD})
    m.close()
    assert len(capsys.readouterr().out.splitlines()) == 1 + 10


def test_the_eta_counts_from_the_resumed_step(tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    m = Monitor(tmp_path, 200, 2, interactive=False, first_step=100)
    clock.now_s += 10
    m.train({"step": 110, **RECORD})  # ten steps in ten seconds, ninety to go
    m.close()
    assert capsys.readouterr().out.splitlines()[-1].endswith("0:01:30")


def test_what_has_no_number_is_a_dash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    m = Monitor(tmp_path, 10, 1, interactive=False)
    m.train({"step": 10, "loss": torch.tensor(2.0), "clip_threshold": None, "grad_norm": "x", "param_norm": math.nan})
    m.evaluate({"step": 10, "heldout_loss": 7.0, "heldout_unigram_entropy_nats": 6.5})
    m.close()
    _, line, held_out = capsys.readouterr().out.splitlines()
    assert line.split()[:8] == ["10", "2.0000", "–", "nan", "–", "–", "–", "–"]
    assert held_out == "held-out at step 10: loss 7.0000 (unigram entropy 6.5000)"


def test_a_message_does_not_tear_the_progress_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stdout", terminal)
    m = Monitor(tmp_path, 100, 1, interactive=True)
    m.train({"step": 100, **RECORD})
    m.message("checkpoint written")
    m.close()
    shown = [line.split("\r")[-1] for line in terminal.getvalue().split("\n")]
    assert "checkpoint written" in shown
    assert "100/100" in shown[-2]
    assert "loss 8.2500" in shown[-2]


def test_a_file_shorter_than_at_the_checkpoint_is_an_alarm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "metrics.jsonl"
    m = Monitor(tmp_path, 20, 1, interactive=False)
    assert m.position() == 0
    for step in (1, 2):
        m.train({"step": step, **RECORD})
        assert m.position() == path.stat().st_size
    m.close()
    position = m.position()
    for fine in (None, 0, position - 1, position):
        Monitor(tmp_path, 20, 2, interactive=False, first_step=2, position=fine).close()
    assert "ALARM" not in capsys.readouterr().out
    m = Monitor(tmp_path, 20, 2, interactive=False, first_step=2, position=position + 7)
    m.train({"step": 3, **RECORD})
    m.close()
    alarms = [line for line in capsys.readouterr().out.splitlines() if "ALARM" in line]
    lost = f"{position} bytes, {position + 7} at the checkpoint: records before the checkpoint are lost"
    assert alarms == [f"ALARM: {path}: {lost}"]
    assert [row["step"] for row in read_metrics(path)[0]] == [1, 2, 3]


def test_reading_metrics_imports_neither_tensorboard_nor_torch() -> None:
    code = "import sys, pipeline.run.metrics_file; print({'torch', 'tensorboard', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=worker_environment())
    assert done.stdout == "set()\n"
