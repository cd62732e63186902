"""The sbatch files: held against golden copies, clean under shellcheck, and no name in them is ever expanded.

UPDATE_GOLDEN=1 writes the copies anew (and fails): look at what changed.
"""

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from slurm import render
from slurm.render import scripts
from slurm.request import Request
from slurm.site import Site
from tests.helpers.running import ROOT

GOLDEN = ROOT / "tests" / "golden"
NEEDS = {"disk_bytes": 2_000_000_000, "memory_bytes": 9_000_000_000}
SITE = Site(
    account="nlp",
    partition="gpu",
    time="2-00:00:00",
    nodes=4,
    cpus_per_rank=24,
    memory_per_node="480G",
    cpu_partition="cpu",
    cpus=16,
    constraint="a100|h100",
    sbatch_options="--exclusive --comment='two words'",
    setup=("module load cuda/12.4", "export NCCL_SOCKET_IFNAME=ib0"),
    container="apptainer exec --nv '/shared/my image.sif'",
    python="/opt/venv/bin/python",
)
WHOLE = Request(
    recipe="base",
    data=Path("/data/wiki books"),
    run=Path("/runs/base"),
    site=SITE,
    overrides=("optim.lr=0.1", "train.ds_config=zero2-bf16"),
    fresh=True,
    sources=("wikipedia", "books=/text/books/*.jsonl.gz"),
    build=("--vocab-size", "30522"),
    tasks=64,
    at_most=8,
    then=("evaluate", "finetune", "export", "memory"),
    tasks_after=("mnli", "squad2"),
    task_data=Path("/data/the tasks"),
    seeds=5,
    finetune_overrides=("optim.lr=5e-4",),
)
PLAIN = Request(recipe="tiny", data=ROOT, run=Path("/runs/tiny"), site=Site(gpus_per_node=0, ranks_per_node=2))
SWEEP = replace(
    PLAIN,
    site=Site(gpu_option="gres", gpu_type="a100"),
    sweep=("optim.lr=0.1,0.2", "train.seed=0,1"),
    at_most=2,
    rank_logs=True,
)
CASES = {"whole": WHOLE, "plain": PLAIN, "sweep": SWEEP}


@pytest.fixture(autouse=True)
def _in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "REPOSITORY", Path("/shared/sibert"))


def rendered(request: Request) -> dict[str, str]:
    """Texts by file name, on any machine."""
    return {
        script.file: script.text.replace(str(ROOT), "/data/corpus")
        for script in scripts(request, NEEDS, "/opt/venv/bin/python")
    }


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    folder, found = GOLDEN / case, rendered(CASES[case])
    if "UPDATE_GOLDEN" in os.environ:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in found.items():
            (folder / name).write_text(text)
        pytest.fail(f"{folder} is written anew: look at it")
    assert found == {path.name: path.read_text() for path in folder.iterdir()}


def test_every_template_has_a_golden_copy() -> None:
    templates = {path.stem for path in (ROOT / "slurm").glob("*.sbatch")}
    copies = {path.stem.partition("-")[0] for path in GOLDEN.rglob("*.sbatch")}
    assert templates == copies


def shellcheck(*files: Path) -> None:
    program = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([program, "-x", *files], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_shellcheck_is_clean() -> None:
    shellcheck(*sorted((ROOT / "slurm").glob("*.sbatch")), ROOT / "slurm/job.sh", *sorted((ROOT / "tests").rglob("*.sh")))
    shellcheck(*sorted(GOLDEN.rglob("*.sbatch")))


NASTY = ("a b", "it's", "$(touch pwned)", "`touch pwned`", "a;touch pwned", "*", "--flag", "ü", "a\tb"[0:1], "${HOME}", "!x")


@pytest.mark.parametrize("name", NASTY)
def test_a_name_is_a_value_and_nothing_else(name: str, tmp_path: Path) -> None:
    """The settings of the file, run by a real bash, give back each name as it was."""
    run = tmp_path / name
    asked = replace(PLAIN, run=run, recipe=f"{name}.toml", overrides=(f"description={name}",))
    (script,) = scripts(asked, NEEDS, f"/venv/{name}/python")
    text = script.text.partition("# shellcheck source")[0]
    assert all(line.startswith("#") for line in text.split("repo=")[0].splitlines() if line)
    shown = subprocess.run(
        ["bash", "-c", text + 'printf "%s\\0" "$run" "$recipe" "$python" "${more[@]}"'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.split("\0")[:-1] == [str(run), f"{name}.toml", f"/venv/{name}/python", "--set", f"description={name}"]
    assert not (tmp_path / "pwned").exists()
    assert f'#SBATCH --output="{run}.slurm/pretrain-%j.log"' in text


def test_words_of_the_container_stay_words() -> None:
    text = rendered(WHOLE)["pretrain.sbatch"]
    line = next(line for line in text.splitlines() if line.startswith("container="))
    assert shlex.split(line.removeprefix("container=(").removesuffix(")")) == [
        "apptainer",
        "exec",
        "--nv",
        "/shared/my image.sif",
    ]


def test_weights_to_start_from_and_values_with_commas_are_one_word_each() -> None:
    request = replace(
        SWEEP, start_from=Path("/runs/at 128"), sweep=("optim.betas=[0.9,0.99],[0.8,0.99]", "train.ds_config=a/b.json")
    )
    text = rendered(request)["sweep.sbatch"]
    assert "more=('--from' '/runs/at 128')\n" in text
    assert "names=('optim.betas=0.9_0.99,train.ds_config=a_b.json' 'optim.betas=0.8_0.99,train.ds_config=a_b.json')\n" in text
    assert (
        "sweep=('optim.betas=[0.9,0.99] train.ds_config=a/b.json' 'optim.betas=[0.8,0.99] train.ds_config=a/b.json')\n" in text
    )
