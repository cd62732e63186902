"""Every rank must train the same thing: what differs is named with its rank, its host and both values."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch

from pipeline.config.load import load_recipe
from pipeline.distributed.ranks import Ranks
from pipeline.train import agreement
from pipeline.train.agreement import check_agreement, code_sha256, plan_of
from preprocessing.corpus.reader import open_corpus
from tests.helpers.ranks import WITHOUT_REPORT, RankServer
from tests.helpers.running import ROOT, SMALL, set_options, worker_environment


def together(plans: list[dict[str, str]]) -> list[str | None]:
    """What each of so many ranks, threads here, says of the plans."""
    barrier, values = Barrier(len(plans)), [None] * len(plans)

    def on_rank(rank: int) -> str | None:
        def gather(value: Any) -> list[Any]:
            values[rank] = json.loads(json.dumps(value))
            barrier.wait()
            gathered = list(values)
            barrier.wait()
            return gathered

        try:
            check_agreement(Ranks(rank, len(plans), gather), plans[rank])
        except ValueError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(len(plans)) as pool:
        return list(pool.map(on_rank, range(len(plans))))


PLAN = {"configuration: optim.lr": "0.1", "corpus: sha256 of its manifest": "aa", "version of torch": "2.13.0"}
PLAN |= {"environment: NVIDIA_TF32_OVERRIDE": "None", "task data: sha256": "aa", "pretrained weights: sha256": "aa"}


def test_equal_plans_are_no_problem() -> None:
    assert together([PLAN, dict(reversed(PLAN.items())), PLAN]) == [None, None, None]


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("configuration: optim.lr", "0.2", "same files"),
        ("configuration: optim.lr", "0.2", "same --set"),
        ("corpus: sha256 of its manifest", "bb", "same files"),
        ("task data: sha256", "bb", "same files of the task's data"),  # of a fine-tuning, as the next
        ("pretrained weights: sha256", "bb", "the same pretrained run"),
        ("environment: NVIDIA_TF32_OVERRIDE", "'1'", "on every node, or nowhere"),
        ("version of torch", "2.12.0", "install the same"),
    ],
)
def test_a_difference_is_named_alike_on_every_rank(field: str, value: str, remedy: str) -> None:
    told = together([PLAN, PLAN, PLAN | {field: value}, PLAN | {field: value}])
    assert len(set(told)) == 1
    line = str(told[0])
    assert f"{field} is {value} on rank 2 (host " in line
    assert "rank 3 (host " in line
    assert "rank 1 " not in line
    assert f"{PLAN[field]} on rank 0 (host " in line
    assert remedy in line


def test_a_field_that_one_rank_does_not_know_is_a_difference() -> None:
    told = together([PLAN, PLAN | {"configuration: optim.new": "1"}])
    assert "optim.new is 1 on rank 1" in str(told[0])


def test_the_code_is_its_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every name and every byte of Python below the folders of the program counts, and nothing else."""
    for name in ("pipeline/a.py", "pipeline/model/b.py", "preprocessing/c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.setattr(agreement, "CODE", tmp_path)
    digests = [code_sha256()]
    for other in ("pipeline/data.json", "pipeline/a.pyc", "tests/d.py"):
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).write_text("x = 1\n")
        assert code_sha256() == digests[0]
    (tmp_path / "pipeline/model/b.py").write_text("x = 2\n")
    digests.append(code_sha256())
    (tmp_path / "pipeline/a.py").rename(tmp_path / "pipeline/e.py")
    digests.append(code_sha256())
    (tmp_path / "preprocessing/f.py").touch()
    digests.append(code_sha256())
    assert len(set(digests)) == 4


def test_what_shapes_the_numbers_is_in_the_plan(monkeypatch: pytest.MonkeyPatch, corpus: Path) -> None:
    """Each of these alone makes another plan, and is named by it."""
    config, opened = load_recipe("tiny", []), open_corpus(corpus, verify="sizes")
    dictionary: dict[str, Any] = {"zero_optimization": {"stage": 1}, "bf16": {"enabled": False}}
    plan = plan_of(config, dictionary, opened)

    def changed(other: dict[str, str]) -> set[str]:
        return {name for name in plan.keys() | other.keys() if plan.get(name) != other.get(name)}

    assert changed(plan_of(load_recipe("tiny", ["optim.clip_c=3.5"]), dictionary, opened)) == {"configuration: optim.clip_c"}
    assert changed(plan_of(config, dictionary | {"zero_optimization": {"stage": 2}}, opened)) == {
        "DeepSpeed: zero_optimization.stage"
    }
    assert changed(plan_of(config, dictionary | {"bf16": {"enabled": True}}, opened)) == {"DeepSpeed: bf16.enabled"}
    for field in ("code: sha256 of its files", "corpus: sha256 of its manifest", "version of python", "version of deepspeed"):
        assert field in plan
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    assert changed(plan_of(config, dictionary, opened)) == {"environment: NVIDIA_TF32_OVERRIDE"}
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    assert changed(plan_of(config, dictionary, opened)) == {"version of CUDA in torch"}
    monkeypatch.undo()
    monkeypatch.setattr(agreement, "code_sha256", lambda: "of another node")
    assert changed(plan_of(config, dictionary, opened)) == {"code: sha256 of its files"}
    monkeypatch.undo()
    versions = {"triton": "9.9"}
    found = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: versions.get(name) or found(name))
    assert changed(plan_of(config, dictionary, opened)) == {"version of triton"}


def start(rank_server: RankServer, *argv: str | Path) -> tuple[list[int], str]:
    """Two ranks; %RANK% in a word is the rank's number, as a path on a node's own disk would be another file on each."""
    ranks = rank_server.run(["pretrain", *argv, *SMALL, *set_options(train__timeout_s=20)], ranks=2)
    return [code for code in ranks.codes if code is not None], ranks.stderr


def test_ranks_with_another_corpus_do_not_start(
    rank_server: RankServer, corpus: Path, little_corpus: Path, tmp_path: Path
) -> None:
    for rank, directory in enumerate((corpus, little_corpus)):
        (tmp_path / f"data-{rank}").symlink_to(directory)
    run = tmp_path / "run"
    codes, stderr = start(rank_server, "--recipe", "tiny", "--data", tmp_path / "data-%RANK%", "--run", run)
    assert codes == [2, 2]
    assert stderr.count("corpus: sha256 of its manifest is") == 1  # one rank speaks
    assert "rank 1 (host " in stderr
    assert not run.exists()


def test_a_damaged_copy_of_the_corpus_is_found_on_whichever_node_it_is(
    rank_server: RankServer, little_corpus: Path, tmp_path: Path
) -> None:
    """Every node's disk has a copy: the same manifest, the same sizes, and on rank 1's one bit of a shard is wrong."""
    for rank in (0, 1):
        shutil.copytree(little_corpus, tmp_path / f"data-{rank}")
    shard = tmp_path / "data-1" / "train-00000.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    run = tmp_path / "run"
    codes, stderr = start(rank_server, "--recipe", "tiny", "--data", tmp_path / "data-%RANK%", "--run", run)
    assert codes == [2, 2]
    assert f"rank 1: {shard}: sha256" in stderr
    assert not run.exists()


def test_ranks_with_another_recipe_do_not_start(rank_server: RankServer, corpus: Path, tmp_path: Path) -> None:
    recipe = (ROOT / "pipeline/config/recipes/tiny-untied.toml").read_text()
    text = [line for line in recipe.splitlines() if not line.startswith("weight_decay")]
    for rank, weight_decay in enumerate(("0.001", "0.002")):
        lines = "\n".join(text).replace("[optim]", f"[optim]\nweight_decay = {weight_decay}", 1)
        (tmp_path / f"mine-{rank}.toml").write_text(lines)
    run = tmp_path / "run"
    codes, stderr = start(rank_server, "--recipe", tmp_path / "mine-%RANK%.toml", "--data", corpus, "--run", run)
    assert codes == [2, 2]
    assert "configuration: optim.weight_decay is 0.002 on rank 1 (host " in stderr
    assert "0.001 on rank 0 (host " in stderr
    assert not run.exists()


def test_ranks_with_another_setting_do_not_start(rank_server: RankServer, little_corpus: Path, tmp_path: Path) -> None:
    """A --set that one rank was given otherwise; here of a run that is there, where --fresh would be no remedy."""
    run = tmp_path / "run"
    brief = set_options(train__steps=2, train__checkpoint_every_steps=2, train__eval_every_steps=2)
    arguments = ["pretrain", "--recipe", "tiny", "--data", little_corpus, "--run", run, *SMALL, *brief]
    assert rank_server.run(arguments, ranks=2, skip=WITHOUT_REPORT).codes == [0, 0]
    ranks = rank_server.run([*arguments, "--set", "train.seed=%RANK%"], ranks=2)
    assert ranks.codes == [2, 2]
    assert "configuration: train.seed is 1 on rank 1 (host " in ranks.stderr
    assert "every rank the same --set" in ranks.stderr
    assert "--fresh" not in ranks.stderr


def test_ranks_with_another_library_do_not_start(corpus: Path, tmp_path: Path) -> None:
    """Rank 1 finds the metadata of another numpy first: two processes of their own, as on two nodes."""
    other = tmp_path / "site" / "numpy-1.0.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.0.0\n")
    run = tmp_path / "run"
    argv = ["pretrain", "--recipe", "tiny", "--data", str(corpus), "--run", str(run), *SMALL]
    launcher = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29871"}
    processes = []
    for rank in ("0", "1"):
        environment = worker_environment(**launcher, RANK=rank, LOCAL_RANK=rank)
        if rank == "1":
            environment["PYTHONPATH"] = f"{other.parent}:{environment['PYTHONPATH']}"
        command = [sys.executable, "-m", "pipeline", *argv]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, **pipes))
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [2, 2], outputs
    assert "version of numpy is 1.0.0 on rank 1 (host " in outputs[0][1]
    assert outputs[1][1] == ""
    assert not run.exists()
