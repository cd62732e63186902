"""The acceptance that a person with a GPU runs, on a CPU: its bookkeeping, and each of its parts at toy size."""

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_acceptance import __main__ as acceptance
from benchmarks.gpu_acceptance import attention, training
from benchmarks.gpu_acceptance.outcome import BROKE, FAILED, LEFT_OUT, PASSED, Check, LeftOut, at_least, at_most, holds
from benchmarks.gpu_acceptance.scope import Scope
from tests.helpers.triton_modules import fresh_triton

CPU = torch.device("cpu")


@pytest.fixture
def scope(tmp_path: Path) -> Scope:
    return Scope(CPU, tmp_path, is_toy=True)


def test_it_goes_on_after_a_part_fails_breaks_or_is_left_out(scope: Scope, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(scope: Scope) -> list[Check]:
        """What fails."""
        return [at_most("a | bar", 2.0, 1.0), at_least("loss", 3.0, 1.0)]

    def breaks(scope: Scope) -> list[Check]:
        raise RuntimeError("CUDA error")

    def is_left_out(scope: Scope) -> list[Check]:
        raise LeftOut("one GPU")

    def passes(scope: Scope) -> list[Check]:
        return [holds("the same bits", True), Check("tokens/s", "7")]

    parts = {"fails": fails, "breaks": breaks, "out": is_left_out, "passes": passes}
    outcomes = acceptance.run_parts(parts, scope, ["- a machine"])
    assert [outcome.status for outcome in outcomes] == [FAILED, BROKE, LEFT_OUT, PASSED]
    page = (scope.out / "acceptance.md").read_text()
    for row in ("| fails | FAILED | 0 | What fails. |", "| breaks | BROKE | 0 | RuntimeError: CUDA error |", "- a machine"):
        assert row in page
    for row in ("| a | bar | 2 | at most 1 | FAILED |", "| loss | 3 | at least 1 | ok |", "| tokens/s | 7 |  |  |"):
        assert row in page
    values = json.loads((scope.out / "acceptance.json").read_text())
    assert [part["status"] for part in values["parts"]] == [FAILED, BROKE, LEFT_OUT, PASSED]
    assert "CUDA error" in (scope.out / "breaks-traceback.txt").read_text()
    assert "out: left out (0 s) one GPU" in capsys.readouterr().out


def test_what_a_part_found_is_on_disk_before_the_next_begins(scope: Scope) -> None:
    def dies(scope: Scope) -> list[Check]:
        assert "| first | passed |" in (scope.out / "acceptance.md").read_text()
        return [holds("seen", True)]

    outcomes = acceptance.run_parts({"first": lambda scope: [holds("it", True)], "second": dies}, scope, [])
    assert [outcome.status for outcome in outcomes] == [PASSED, PASSED]


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_acceptance", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        acceptance.main()
    assert end.value.code == 2
    assert "torch finds no GPU here; --device cpu tries the acceptance itself" in capsys.readouterr().err


def test_without_kernels_their_parts_are_left_out(scope: Scope) -> None:
    for part in (attention.correctness, attention.invariance, attention.speed):
        with pytest.raises(LeftOut, match="the Triton kernels cannot run here: there is no GPU"):
            part(scope)


def test_a_program_that_fails_is_told_with_its_last_error(scope: Scope) -> None:
    with pytest.raises(RuntimeError, match=r"exit code 1 of -m platform.nowhere: .*Error"):
        scope.program("platform.nowhere")


def test_certify_tells_what_failed(scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"ds_config": name, "world_size": size, "problem": problem, "parameters": 1e-7}
        for name, size, problem in (("zero1", 1, None), ("zero3", 2, "norms differ by 1e-3"))
    ]

    def program(self: Scope, *words: object, **more: object) -> str:
        Path(str(words[-1])).write_text(json.dumps(rows))
        return ""

    monkeypatch.setattr(Scope, "program", program)
    (check,) = training.certify(scope)
    assert (check.passed, check.got) == (False, "zero3, 2 ranks: norms differ by 1e-3")
    rows.pop()
    (check,) = training.certify(scope)
    assert check.passed


@pytest.mark.long
@pytest.mark.parametrize("part", ["correctness", "invariance", "speed"])
def test_the_parts_on_the_kernels_pass_in_the_interpreter(scope: Scope, part: str) -> None:
    with fresh_triton(interpret=True):
        (outcome,) = acceptance.run_parts({part: acceptance.PARTS[part]}, scope, [])
    assert outcome.status == PASSED, outcome


@pytest.mark.long
@pytest.mark.parametrize("part", ["certify", "memory", "resume", "throughput", "losses", "ranks"])
def test_the_parts_on_training_pass_at_toy_size(scope: Scope, part: str) -> None:
    (outcome,) = acceptance.run_parts({part: acceptance.PARTS[part]}, scope, [])
    assert outcome.status == PASSED, outcome


@pytest.mark.long
def test_fine_tuning_and_export_pass_at_toy_size(scope: Scope) -> None:
    (outcome,) = acceptance.run_parts({"finetune": acceptance.PARTS["finetune"]}, scope, [])
    assert outcome.status == PASSED, outcome
