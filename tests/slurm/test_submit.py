"""`python -m slurm submit`: everything that can be known beforehand is refused before anything is queued or written.

Without a cluster: tests/cluster/ has a real one.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from slurm import __main__ as program
from slurm.request import Request, estimate_s
from slurm.site import Site
from tests.helpers.running import ROOT, SMALL, refused, run_cli
from tests.helpers.small_corpora import build_small, write_rows


@pytest.fixture
def say(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Call submit; (exit code, standard output, standard error)."""
    (tmp_path / "site.env").write_text("GPUS_PER_NODE=0\nRANKS_PER_NODE=2\n")

    def call(*more: str, data: Path = corpus, recipe: str = "tiny") -> tuple[int, str, str]:
        words = ["submit", "--recipe", recipe, "--data", str(data), "--run", str(tmp_path / "run"), *SMALL, *more]
        if "--site-file" not in more:
            words += ["--site-file", str(tmp_path / "site.env")]
        try:
            code = program.main(words)
        except SystemExit as end:
            code = int(str(end.code))
        out, err = capsys.readouterr()
        assert code == 0 or (len(err.splitlines()) == 1 and code == 2), err
        return code, out, err

    return call


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--set", "optim.lrr=1"], "unknown key 'optim.lrr'"),
        (["--nodes", "3"], "world size 6"),
        (["--nodes", "0"], "at least one"),
        (["--nodes", "two"], "whole number"),
        (["--time", "never"], "time limit 'never'"),
        (["--time", "5"], "WARNING_S"),
        (["--site", "ACCOUNT=$(id)"], "a word"),
        (["--site", "NODES=2", "--nodes", "4"], "twice"),
        (["--then", "bake"], "invalid choice"),
        (["--then", "finetune", "--set", "model.positions=learned"], "--set data.seq_len=64"),  # tiny has 64 of them
        (["--then", "finetune", "--finetune-set", "data.seq_len=64", "--seeds", "0"], "--seeds 0"),
        (["--then", "finetune", "--finetune-set", "optim.lrr=1"], "unknown key 'optim.lrr'"),
        (["--then", "finetune", "--finetune-set", "data.seq_len=64", "--task-data", "/none"], "no such folder"),
        (["--run", "/"], "directory of its own"),
        (["--site", "TFLOPS_PER_GPU=nan"], "finite"),
        (["--site", 'CONTAINER="apptainer \'x"'], "CONTAINER"),
        (["--site", "SBATCH_OPTIONS='--comment=a\nid'"], "long options"),
        (["--site", "SBATCH_OPTIONS='--no-requeue'"], "--no-requeue: the job could not go back into the queue"),
        (["--site-file", "/bin/ls"], "not a text file"),
        (["--sweep", "lr=1,2"], "section.key"),
        (["--sweep", "optim.lr=0.1,$(id)"], "directory's name"),
        (["--sweep", "optim.lr=0.1,-1"], "above zero"),
        (["--sweep", "optim.lr=0.1,0.1"], "two runs would be called optim.lr=0.1"),
        (["--sweep", "optim.betas=[0.9,0.99],[0.9"], "'[0.9' is to be a part"),
        (["--sweep", "optim.betas=[0.9,0.99],[0.9,2]"], "optim.betas"),
        (["--sweep", "train.ds_config=zero1,x/none.json"], "no file x/none.json"),
        (["--sweep", "optim.lr=0.1", "--then", "export"], "--sweep"),
        (["--tasks", "0"], "--tasks 0"),
        (["--source", "builtin", "--build", "--vocab-size 2000"], "built with vocab_size = 1024"),
        (["--build", "'open"], "quote"),
        (["--build", "--vocab-size 1024"], "give --source"),
    ],
)
def test_refused(say, tmp_path: Path, more: list[str], words: str) -> None:
    _, _, err = say(*more)
    assert words in err
    assert [path.name for path in tmp_path.iterdir()] == ["site.env"]


def test_a_corpus_that_is_not_there(say, tmp_path: Path) -> None:
    assert "--source" in say(data=tmp_path / "none")[2]
    assert "no such file" in say("--source", "x=texts/*.txt", data=tmp_path / "none")[2]
    assert "invalid" in say("--source", "builtin", "--build", "--vocab-size many", data=tmp_path / "none")[2]


@pytest.mark.parametrize("name", ['a"b', "a\nb", "a%jb", "a\\b", "a\x07"])
def test_a_path_that_sbatch_cannot_take(say, tmp_path: Path, name: str) -> None:
    assert "sbatch cannot take" in say("--run", str(tmp_path / name))[2]


@pytest.mark.parametrize(
    ("run_dir", "data"), [("c/run", "c"), ("c", "c/data"), ("c", "c"), ("c", "c.slurm"), ("c", "c.slurm/d")]
)
def test_run_and_corpus_lie_apart(say, tmp_path: Path, run_dir: str, data: str) -> None:
    words = ["--source", "builtin", "--run", str(tmp_path / run_dir)]
    assert "keep them apart" in say(*words, data=tmp_path / data)[2]


def test_damaged_records(say, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.slurm").mkdir()
    (tmp_path / "run.slurm" / "jobs.json").write_text('{"jobs": [{}], "data": "", "elements": []}')
    assert "jobs.json: damaged" in say()[2]
    assert program.main(["status", "--run", str(tmp_path / "run")]) == 2
    assert "jobs.json: damaged" in capsys.readouterr().err


def test_another_run_is_in_the_way(say, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("x")
    assert "not a run directory" in say()[2]


def test_an_export_is_in_the_way(say, tmp_path: Path) -> None:
    (tmp_path / "run.hf").touch()
    assert "exists already" in say("--then", "export")[2]


def test_without_slurm(say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """--print works on a laptop; a real submission says what is missing."""
    monkeypatch.setenv("PATH", "/nowhere")
    code, out, _ = say("--print", "--then", "evaluate")
    assert code == 0
    assert "sbatch --parsable '--dependency=afterok:<id of pretrain>' --kill-on-invalid-dep=yes" in out
    assert "no sbatch here" in say()[2]
    assert [path.name for path in tmp_path.iterdir()] == ["site.env"]


def test_print_shows_what_a_sweep_and_a_build_would_be(say, tmp_path: Path) -> None:
    _, out, _ = say("--print", "--sweep", "optim.lr=0.1,0.2", "--sweep", "train.seed=0,1", "--at-most", "2")
    assert "#SBATCH --array=0-3%2" in out
    assert "names=('optim.lr=0.1,train.seed=0' 'optim.lr=0.1,train.seed=1' " in out
    data = tmp_path / "none"
    _, out, _ = say("--print", "--source", "builtin", "--build", "--vocab-size 1024", "--tasks", "4", data=data)
    assert out.count("#####") == 2 * 4
    assert "build=('--source=builtin' '--vocab-size' '1024')\n" in out


def test_a_sweep_over_lists_and_paths(say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists keep their commas; a path is the same from the job's directory, and its name is one directory's."""
    (tmp_path / "mine").mkdir()
    for name in ("zero1", "zero2"):
        shutil.copy(ROOT / "ds_configs" / f"{name}.json", tmp_path / "mine" / f"{name}.json")
    monkeypatch.chdir(tmp_path)
    paths = "train.ds_config=zero3,mine/zero1.json,mine/zero2.json"
    schedule = ["--set", "optim.schedule.decay=step", "--sweep", "optim.schedule.milestones=[0.5],[0.6, 0.9]"]
    _, out, err = say("--print", *schedule, "--sweep", paths, "--set", "train.ds_config=mine/zero1.json")
    assert not err
    assert "#SBATCH --array=0-5\n" in out
    assert "names=('optim.schedule.milestones=0.5,train.ds_config=zero3' " in out
    assert "'optim.schedule.milestones=0.6_0.9,train.ds_config=mine_zero2.json'" in out
    assert f"'optim.schedule.milestones=[0.6,0.9] train.ds_config={tmp_path}/mine/zero2.json'" in out
    assert f"'--set' 'optim.schedule.decay=step' '--set' 'train.ds_config={tmp_path}/mine/zero1.json')" in out


def test_weights_to_start_from_are_looked_at_before_anything_is_queued(say, tmp_path: Path) -> None:
    assert "neither a run directory" in say("--from", str(tmp_path / "nothing"))[2]
    run = tmp_path / "run"
    assert "is the run itself" in say("--from", str(run))[2]


def test_a_corpus_that_is_built_is_asked_for_again(say, tmp_path: Path) -> None:
    """The same submit again is accepted; where a setting is another, it is named."""
    rows = [{"text": topics[name][:3000]} for name in sorted(topics)[:30]]
    source, out = write_rows(tmp_path / "a.jsonl", rows), tmp_path / "corpus"
    build_small(out, f"a={source}", min_words=0, language="en", epochs={"a": 2.0})
    options = ["--vocab-size 300", "--heldout-fraction 0.1", "--min-words 0", "--language en", "--epochs a=2"]
    words = ["--print", "--source", f"a={source}", "--build"]
    code, said, _ = say(*words, " ".join(options), data=out)
    assert code == 0
    assert f"corpus       {out} is built: nothing of it is queued" in said
    assert "preprocess" not in said
    for option, difference in (
        ("--vocab-size 300", "vocab_size = 300, asked for now: 8192"),
        ("--min-words 0", "min_words = 0, asked for now: 20"),
        ("--language en", "language = 'en', asked for now: None"),
        ("--epochs a=2", "epochs = {'a': 2.0}, asked for now: {}"),
    ):
        others = " ".join(other for other in options if other != option)
        assert f"--data {out}: built with {difference}; another --data" in say(*words, others, data=out)[2]
    assert "built with slice_mb = 8.0, asked for now: 4.0" in say(*words, " ".join([*options, "--slice-mb 4"]), data=out)[2]


def test_build_settings_that_cannot_be_are_refused_before_a_job_is_queued(say, tmp_path: Path) -> None:
    err = say("--source", "builtin", "--build", "--vocab-size 3", data=tmp_path / "none")[2]
    assert "--vocab-size 3: expected 6 to 1048575 pieces" in err


def test_variables_that_would_go_over_the_scripts_are_named(say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBATCH_NO_REQUEUE", "1")
    assert "not used     SBATCH_NO_REQUEUE" in say("--print")[1]


def test_an_option_that_overrides_a_setting_is_said(say) -> None:
    said = say("--print", "--site", "PARTITION=gpu", "--site", "SBATCH_OPTIONS=--partition=other")[1]
    assert "options      --partition=other goes over PARTITION=gpu\n" in said


def test_the_estimate() -> None:
    figures = {"parameters": 10**8, "tokens": 10**9}
    asked = Request("tiny", Path("d"), Path("/nowhere/r"), Site(nodes=2, gpus_per_node=4, tflops_per_gpu=100))
    seconds, how = estimate_s(asked, figures)
    assert seconds == pytest.approx(6e17 / 8e14)
    assert "TFLOPS_PER_GPU=100" in how


def test_the_estimate_of_a_run_that_has_begun(tmp_path: Path) -> None:
    rows = [{"kind": "train", "step": n, "tokens": n * 1000, "tokens_per_s": 500.0, "world_size": 2} for n in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = Request("tiny", Path("d"), tmp_path, Site(nodes=2, gpus_per_node=4, tflops_per_gpu=100))
    figures = {"parameters": 1, "tokens": 13_000}
    assert estimate_s(asked, figures)[0] == pytest.approx(10_000 / (250 * 8))
    assert "TFLOPS" in estimate_s(replace(asked, fresh=True), figures)[1]


def test_status_of_nothing(tmp_path: Path) -> None:
    refused(run_cli("slurm", "status", "--run", tmp_path / "none"), "no jobs were submitted")


def test_the_help_texts() -> None:
    for verb in ("submit", "status"):
        done = run_cli("slurm", verb, "--help")
        assert done.returncode == 0
        assert str(ROOT) not in done.stdout
