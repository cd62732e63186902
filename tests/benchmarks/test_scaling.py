"""Bytes between ranks: the formula, the counter, and both together."""

import shutil
from pathlib import Path

import pytest

from benchmarks.scaling import bytes_of_step, count, crossed_so_far


def test_one_rank_sends_nothing_and_stage_3_as_much_as_stage_1() -> None:
    assert [bytes_of_step(stage, 1, 10) for stage in range(4)] == [0, 0, 0, 0]
    assert [bytes_of_step(stage, 4, 10) for stage in range(4)] == [120, 180, 180, 180]


def test_the_counter_is_the_loopback_s(tmp_path: Path) -> None:
    table = tmp_path / "dev"
    table.write_text("Inter-|   Receive\n face |bytes\n  eth0: 99 1\n    lo: 1234 5 0 0 0 0 0 0 1234 5\n")
    assert crossed_so_far(str(table)) == 1234


@pytest.mark.long
@pytest.mark.skipif(not (shutil.which("unshare") and shutil.which("ip")), reason="needs unshare and ip")
def test_what_crosses_is_what_the_formula_says() -> None:
    for row in count(2):
        assert row.crossed == pytest.approx(row.formula, rel=0.02), row
