"""Nothing is unpickled on the way from files to a model, whatever the verb."""

import re
from pathlib import Path

import pytest

from tests.helpers.ranks import WITHOUT_REPORT, Death, Failure, RankServer
from tests.helpers.running import ROOT, SMALL, long, set_options

# Every door to the unpickler that there is in Python and torch; a call of any is an error on every rank.
UNPICKLING = ",".join(
    (
        *("pickle:load", "pickle:loads", "pickle:Unpickler", "pickle:_Unpickler", "_pickle:load", "_pickle:loads"),
        *("torch:load", "torch.serialization:load", "torch.distributed.distributed_c10d:_unpickler"),
    )
)
NO_UNPICKLING = Failure("all", UNPICKLING, errno="EPERM")


@pytest.mark.parametrize("ds_config", ["zero1", *long("zero3")])
def test_start_resume_and_evaluation_unpickle_nothing(
    rank_server: RankServer, corpus: Path, tmp_path: Path, ds_config: str
) -> None:
    run = tmp_path / "run"
    options = [*SMALL, *set_options(train__ds_config=ds_config, train__checkpoint_every_steps=4)]
    arguments = ["pretrain", "--recipe", "tiny", "--data", corpus, "--run", run, *options]
    killed = rank_server.run(arguments, 2, fail=NO_UNPICKLING, die=Death("all", "step", 11), skip=WITHOUT_REPORT)
    assert killed.codes == [-9, -9], killed.stderr
    resumed = rank_server.run(arguments, 2, fail=NO_UNPICKLING)
    assert resumed.codes == [0, 0], resumed.stderr
    assert "going on from step 8" in resumed.stdout
    evaluated = rank_server.run(["evaluate", "--run", run], fail=NO_UNPICKLING)
    assert evaluated.codes == [0], evaluated.stderr
    converted = rank_server.run(["checkpoint", "convert", run, "--out", tmp_path / "m.safetensors"], fail=NO_UNPICKLING)
    assert converted.codes == [0], converted.stderr


def test_the_sources_name_no_unpickler() -> None:
    """But for `gather_objects`, with which the ranks of `certify` exchange tensors while they run."""
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sorted((ROOT / "pipeline").rglob("*.py"))
        for line in path.read_text().splitlines()
        if re.search(r"pickle|torch\.load|torch\.save|allow_pickle|gather_object\b|broadcast_object", line)
    ]
    assert [line.split(":")[0] for line in found] == ["pipeline/engine/processes.py", "pipeline/engine/processes.py"], found
