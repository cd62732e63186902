"""What an experiment writes: a table, a picture and a JSON, whole or absent."""

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from pipeline.experiments.found import Found, markdown, write


def found(draw: object = None) -> Found:
    def axes(figure: Figure) -> None:
        figure.subplots().plot([0, 1])

    return Found(
        finding="Two is more than one.",
        columns=("what", "steps", "loss"),
        rows=[["first", 1200, 0.123456], ["second", None, float("inf")]],
        seeds=[3],
        settings={"rate": (0.1, 0.2)},
        measured={1: [float("nan"), 2.0]},
        draw=draw or axes,  # type: ignore[arg-type]
    )


def test_the_table() -> None:
    lines = ["| what | steps | loss |", "| --- | --- | --- |", "| first | 1,200 | 0.1235 |", "| second | – | inf |"]
    assert markdown(found()) == "\n".join(lines)


def test_three_files_and_the_picture_elsewhere(tmp_path: Path) -> None:
    write(found(), tmp_path / "a" / "b", {"experiment": "none", "quick": True}, png=tmp_path / "docs.png")
    result = json.loads((tmp_path / "a" / "b" / "result.json").read_text(encoding="utf-8"))
    assert result["experiment"] == "none"
    assert result["measured"] == {"1": [None, 2.0]}
    assert result["settings"] == {"rate": [0.1, 0.2]}
    assert result["seeds"] == [3]
    assert result["table"][1] == {"what": "second", "steps": None, "loss": None}
    assert {"python", "torch", "git", "command"} <= result["versions"].keys()
    assert (tmp_path / "a" / "b" / "picture.png").read_bytes() == (tmp_path / "docs.png").read_bytes()


def test_a_picture_that_fails_leaves_no_result(tmp_path: Path) -> None:
    def broken(figure: Figure) -> None:
        raise ValueError("no data")

    with pytest.raises(ValueError, match="no data"):
        write(found(broken), tmp_path, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.md"]
