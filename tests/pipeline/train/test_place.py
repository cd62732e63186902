"""The meeting of a training's processes: a wish to stop ends it, for pretraining and fine-tuning alike."""

import socket

import pytest

from pipeline.config.load import load_recipe
from pipeline.distributed.launch import LAUNCHER_VARIABLES, World
from pipeline.distributed.stop_signals import StopRequest
from pipeline.train.place import meet


@pytest.mark.parametrize("recipe", ["tiny", "finetune/mnli"])
def test_a_wish_to_stop_ends_the_wait_for_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    for name in LAUNCHER_VARIABLES:
        monkeypatch.setenv(name, "")  # what meet() exports goes with this test
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    stop = StopRequest()
    stop.ask("signal SIGTERM")
    assert meet(load_recipe(recipe, ["batch.micro_sequences=4"]), World(0, 2, 0, "127.0.0.1", port), stop) is None
    assert "stopped (signal SIGTERM) while waiting for the other ranks; nothing has begun" in capsys.readouterr().out
