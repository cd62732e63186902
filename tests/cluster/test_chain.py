"""Chains of jobs from one submission, sweeps, and requests that a cluster grants or refuses."""

import json
import pydoc_data.topics
import re
import sys
from pathlib import Path

import pytest

from slurm.records import folder_of, read_lines
from tests.cluster.cluster import Cluster
from tests.cluster.jobs import FAULTS, MIDDLE, QUICK, SITE, Submitted, program, submission, submit, submitted
from tests.helpers.running import ROOT, set_options
from tests.helpers.task_files import write_tasks

SHORT = set_options(train__steps=10)
ONE_EACH = set_options(batch__micro_sequences=1)
ONE_RANK = {**QUICK, "NODES": "1"}
BAD_ELEMENT = "SETUP='[ \"${SLURM_ARRAY_TASK_ID:-}\" != 2 ] || { echo the disk of element 2 is gone >&2; exit 3; }'"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some documents, in a file each."""
    folder = tmp_path_factory.mktemp("texts")
    for name, text in sorted(pydoc_data.topics.topics.items()):
        if len(text) > 2000:
            (folder / f"{name}.txt").write_text(text)
    return folder


def test_preprocess_pretrain_evaluate_and_export(cluster: Cluster, texts: Path, tmp_path: Path) -> None:
    """Four elements, two at a time, of which one fails: the rest of the chain is cancelled with a reason. The same again
    without the fault does what is missing, to the end."""
    build = ["--source", f"topics={texts}/*.txt", "--build", "--vocab-size 500 --slice-mb 0.05 --heldout-fraction 0.1"]
    command = [*build, "--tasks", "4", "--at-most", "2", "--then", "evaluate", "--then", "export", *SHORT]
    run, data = tmp_path / "run", tmp_path / "corpus"
    failed = submit(cluster, run, data, *command, "--site", BAD_ELEMENT, site={**SITE, "NODES": "1"})
    assert list(failed.jobs) == [
        "preprocess-tokenizer",
        "preprocess-shard",
        "preprocess-finalize",
        "pretrain",
        "evaluate",
        "export",
    ]
    for stage in ("preprocess-finalize", "pretrain", "evaluate", "export"):
        assert failed.wait("CANCELLED", stage=stage)["Reason"] == "DependencyNeverSatisfied"
    told = failed.status()
    assert re.search(r"preprocess-shard +\d+_2 +FAILED .*the disk of element 2 is gone", told), told
    assert re.search(r"evaluate +\d+ +CANCELLED \(DependencyNeverSatisfied\)", told), told
    assert not data.exists()

    again = submit(cluster, run, data, *command, site=ONE_RANK)
    again.wait("COMPLETED", stage="evaluate")
    again.wait("COMPLETED", stage="export")
    assert (run.with_name("run.hf") / "model.safetensors").exists()
    evaluation = json.loads((folder_of(run) / "evaluation.json").read_text())
    summary = json.loads((run / "summary.json").read_text())
    assert evaluation["heldout_loss"] == pytest.approx(summary["heldout_loss"], rel=1e-6)
    assert most_at_once(again) <= 2
    assert re.search(r"pretrain +\d+ +COMPLETED .*finished", again.status())


@pytest.mark.long
def test_from_text_to_the_scorecard_and_an_export(cluster: Cluster, texts: Path, tmp_path: Path) -> None:
    """One submission: text, shards, training, fine-tuning on all tasks, their scorecard, and the model for transformers."""
    (tmp_path / "tasks").mkdir()
    build = ["--source", f"topics={texts}/*.txt", "--build", "--vocab-size 500 --heldout-fraction 0.1", "--tasks", "2"]
    after = ["--then", "finetune", "--task-data", write_tasks(tmp_path / "tasks"), "--then", "export"]
    brief = {"data.seq_len": 64, "task.stride": 16, "task.question_tokens": 40, "batch.micro_sequences": 8}
    settings = [word for key, value in brief.items() for word in ("--finetune-set", f"{key}={value}")]
    run = tmp_path / "run"
    positions = set_options(model__max_seq_len=64)
    job = submit(cluster, run, tmp_path / "corpus", *build, *after, *settings, *SHORT, *positions, site=ONE_RANK)
    job.wait("COMPLETED", stage="finetune", timeout_s=900)
    job.wait("COMPLETED", stage="export", timeout_s=300)
    card = json.loads((run.with_name("run.finetuned") / "scorecard.json").read_text())
    assert {row["name"].split()[0] for row in card["rows"]} == {"mnli", "squad1", "squad2"}
    assert (run.with_name("run.hf") / "model.safetensors").exists()


@pytest.mark.long
def test_the_table_of_memory(cluster: Cluster, little_corpus: Path, tmp_path: Path) -> None:
    """Beside the training: four stages of four systems, each in processes of its own."""
    job = submit(cluster, tmp_path / "run", little_corpus, "--then", "memory", *SHORT, site=ONE_RANK)
    job.wait("COMPLETED", stage="memory", timeout_s=600)
    page = (folder_of(tmp_path / "run") / "memory.html").read_text()
    assert page.count("<svg") == 2
    assert page.count("measured") >= 16


def most_at_once(job: Submitted) -> int:
    """Elements of the array of shards that ran at the same time."""
    elements = [job.cluster.job(f"{job.jobs['preprocess-shard']}_{number}") for number in range(4)]
    times = [(fields["StartTime"], fields["EndTime"]) for fields in elements]
    return max(sum(start < other_end and other_start < end for other_start, other_end in times) for start, end in times)


@pytest.mark.long
def test_each_element_of_a_sweep_has_a_life_of_its_own(cluster: Cluster, little_corpus: Path, tmp_path: Path) -> None:
    """One finishes, one is cancelled, and the last, whose id is that of the whole array, crashes and goes on alone."""
    fault = f"F=(none slow exit); export FAULT=${{F[$SLURM_ARRAY_TASK_ID]}} PYTHONPATH={FAULTS}"
    site = {**SITE, "NODES": "1", "RANKS_PER_NODE": "2", "SETUP": f"'{fault}'"}
    job = submit(cluster, tmp_path / "lr", little_corpus, "--sweep", "optim.lr=0.1,0.2,0.3", site=site)
    runs = [tmp_path / "lr" / f"optim.lr={lr}" for lr in ("0.1", "0.2", "0.3")]
    elements = [f"{job.jobs['sweep']}_{number}" for number in range(3)]
    middle = runs[1] / "checkpoints" / MIDDLE
    cluster.wait_until(middle.exists, 90, job.status)
    cluster.run("scancel", elements[1])
    for element, state in ((0, "COMPLETED"), (1, "CANCELLED"), (2, "COMPLETED")):
        cluster.wait(elements[element], state, timeout_s=90)
    ends = [[line["end"] for line in read_lines(folder_of(run)) if "end" in line] for run in runs]
    assert ends[0::2] == [["finished"], ["crashed", "finished"]]
    assert set(ends[1]) <= {"terminated", "cancelled"}
    assert cluster.job(elements[1])["JobState"] == "CANCELLED"
    assert [cluster.job(element)["Restarts"] for element in elements] == ["0", "0", "1"]
    configs = [json.loads((run / "config.json").read_text()) for run in runs]
    assert [config["config"]["optim"]["lr"] for config in configs] == [0.1, 0.2, 0.3]
    assert "optim.lr=0.3: finished, 2 starts" in job.status()


def test_what_is_queued_is_not_queued_twice(cluster: Cluster, little_corpus: Path, tmp_path: Path) -> None:
    words = submission(tmp_path / "run", little_corpus, "--site", "SBATCH_OPTIONS=--hold")
    done = cluster.run(sys.executable, "-m", "slurm", *words, env={"PYTHONPATH": str(ROOT)})  # as a user does
    job = submitted(cluster, tmp_path / "run", done.stdout)
    assert f"scancel {job.jobs['pretrain']}" in done.stdout
    assert "already in the queue" in program(cluster, *submission(tmp_path / "run", little_corpus), refused=True)
    assert re.search(r"pretrain +\d+ +PENDING \(JobHeldUser\)", job.status())
    cluster.run("scancel", job.jobs["pretrain"])
    assert job.wait("CANCELLED")


def test_what_cannot_be_met_is_refused_before_anything_is_queued(
    cluster: Cluster, texts: Path, little_corpus: Path, tmp_path: Path
) -> None:
    for data, more, site, reason in (
        (little_corpus, ONE_EACH, {"NODES": "8"}, "pretrain, nothing is queued: .*Node count"),
        (little_corpus, (), {"NODES": "1", "GPUS_PER_NODE": "4"}, "node configuration is not available"),
        (little_corpus, (), {"PARTITION": "none"}, "invalid partition"),
        (little_corpus, (), {"TIME": "9-0"}, "time limit"),
        # the first jobs of the chain could be queued, and are not
        (tmp_path / "none", ("--source", f"t={texts}/*.txt", *ONE_EACH), {"NODES": "8"}, "pretrain, nothing is queued"),
    ):
        said = program(cluster, *submission(tmp_path / "run", data, *more, site={**SITE, **site}), refused=True)
        assert re.search(reason, said), said
        assert len(said.splitlines()) == 1
    assert cluster.run("squeue", "--noheader").stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_four_nodes_of_eight_gpus(large_cluster: Cluster, little_corpus: Path, tmp_path: Path) -> None:
    """Submitted for real, and held, on a cluster that says it has them."""
    site = {"NODES": "4", "CPUS_PER_RANK": "24", "MEMORY_PER_NODE": "480G", "SBATCH_OPTIONS": "--hold"}
    batch = set_options(batch__global_sequences=32, batch__micro_sequences=1)
    for option in ("gpus-per-node", "gres"):
        job = submit(large_cluster, tmp_path / option, little_corpus, *batch, site={**site, "GPU_OPTION": option})
        fields = job.wait("PENDING")
        assert (fields["NumNodes"], fields["NumTasks"], fields["CPUs/Task"]) == ("4-4", "32", "24")
        assert "gpu:8" in fields["TresPerNode"]
        assert "mem=1920G" in fields["TRES"]
    nine = submission(tmp_path / "nine", little_corpus, *batch, site={**site, "GPUS_PER_NODE": "9", "RANKS_PER_NODE": "8"})
    assert "nothing is queued" in program(large_cluster, *nine, refused=True)
