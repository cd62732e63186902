"""`certify` passes here, sees deliberate mistakes, and refuses what it cannot run."""

import json
from pathlib import Path

import pytest

from pipeline.engine import deepspeed_internals
from pipeline.verify.certify import cells, shipped, table
from pipeline.verify.comparison import NORMS_WITHIN, PARAMETERS_WITHIN, Result
from tests.helpers.ranks import RankServer
from tests.helpers.running import ROOT, long, refused, run_cli
from tests.pipeline.verify.mutations_worker import MUTATIONS

EVERY_STAGE = ("zero0", "zero1-bf16", "zero1-offload", "zero2", "zero3-bf16")


@pytest.mark.parametrize("names", [EVERY_STAGE, *long(())], ids=["every stage", "all"])
def test_the_quick_matrix_passes_on_this_machine(names: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    named = [word for name in names for word in ("--ds-config", name)]
    done = run_cli("pipeline", "certify", *named, "--json-file", out, timeout_s=900)
    assert done.returncode == 0, done.stdout + done.stderr
    results = [Result(**row) for row in json.loads(out.read_text())]
    assert {(r.ds_config, r.world_size) for r in results} == {(name, size) for name in names or shipped() for size in (1, 2)}
    assert all(r.parameters <= PARAMETERS_WITHIN and r.norms <= NORMS_WITHIN for r in results)
    assert (PARAMETERS_WITHIN, NORMS_WITHIN) == (1e-5, 1e-6)
    assert done.stdout.strip() == table(results)
    assert done.stdout.count("PASS") == 2 * len(names or shipped())


@pytest.fixture(scope="module")
def problems(rank_server: RankServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    out = tmp_path_factory.mktemp("mutations") / "problems.json"
    done = rank_server.run([out], 2, program="tests.pipeline.verify.mutations_worker")
    assert done.codes == [0, 0], done.stderr
    return json.loads(out.read_text())  # type: ignore[no-any-return]


WHAT_SHOWS = {
    "none": None,
    "no global reduction": "norms differ",
    "no global reduction, stage 3": "norms differ",
    "no group scoping": "norms differ",
    "no pre-pass": "parameters differ",
    "learning rate of the first step": "norms differ",
    "DeepSpeed's default clipping": "parameters differ",
    "opaque output": "norms differ",
    "a lost step": "1 steps skipped as non-finite",
    "one rank's last bit": "the ranks decided differently",
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mistake_in_the_product_is_seen(problems: dict[str, str | None], mutation: str) -> None:
    problem, expected = problems[mutation], WHAT_SHOWS[mutation]
    assert problem is None if expected is None else problem is not None and expected in problem


def test_a_failure_is_a_line_of_the_table() -> None:
    good = Result("zero1", "paper", 1, 2, parameters=1e-7, norms=1e-8, gradient=None, clipped_steps=3, problem=None)
    bad = Result(
        "zero1", "invariant", 4, 2, parameters=1e-2, norms=1e-8, gradient=0.1, clipped_steps=3, problem="parameters differ"
    )
    lines = table([good, bad]).splitlines()
    assert lines[1].split() == ["zero1", "2", "2", "1.0e-02", "1.0e-08", "1.0e-01", "15%", "FAIL"]
    assert lines[2] == "FAIL zero1, 2 ranks, invariant, accumulation 4: parameters differ"


def test_full_is_every_combination() -> None:
    full = cells("full", 2, ["zero1", "zero3"])
    assert len(full) == len(set(full)) == 2 * 6 * 2
    assert {c.case for c in full} == {"paper", "invariant", "matrix", "tails", "tied", "adamw"}
    quick = [(c.ds_config, c.case) for c in cells("quick", 2, ["zero1", "zero3"])]
    assert quick == [("zero1", "paper"), ("zero3", "paper"), ("zero1", "tails"), ("zero3", "tied")]


@pytest.mark.parametrize("name", ["zero9", "no/such/file.json"])
def test_an_unknown_ds_config_is_refused(rank_server: RankServer, name: str) -> None:
    refused(rank_server.run(["certify", "--ds-config", name]).completed(), "train.ds_config")


def test_a_deepspeed_that_lacks_a_name_is_refused_with_the_versions_that_work() -> None:
    class DeepSpeedZeroOptimizer:
        cpu_offload = False

    with pytest.raises(ValueError, match=r"DeepSpeedZeroOptimizer has no averaged_gradients.*install deepspeed 0.19.8"):
        deepspeed_internals.check_names(DeepSpeedZeroOptimizer())
    with pytest.raises(ValueError, match=r"engine has no optimiser that is one of .*it has object"):
        deepspeed_internals.check_names(object())


def test_the_versions_that_work_are_the_pinned_ones() -> None:
    pinned = [
        line.split("==")[1].strip() for line in (ROOT / "requirements.txt").read_text().splitlines() if "deepspeed==" in line
    ]
    assert set(pinned) <= set(deepspeed_internals.WORKING_VERSIONS)
