"""The life of a training job on a real cluster, state by state: docs/slurm.md draws it.

Whatever happens to it, the run ends with the losses, and all else, of one that nobody disturbed.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.life import BLAMELESS
from slurm.records import folder_of
from tests.cluster.cluster import Cluster
from tests.cluster.jobs import QUICK, RUN, SITE, SLOW, Submitted, submit, with_fault
from tests.helpers.ranks import WITHOUT_REPORT, RankServer
from tests.helpers.running import long, set_options
from tests.helpers.same_run import assert_same


@pytest.fixture(scope="module")
def undisturbed(rank_server: RankServer, little_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, on two ranks of this machine without SLURM."""
    run = tmp_path_factory.mktemp("local") / "run"
    argv = ["pretrain", "--recipe", "tiny", "--data", little_corpus, "--run", run, *RUN]
    assert rank_server.run(argv, 2, skip=WITHOUT_REPORT).codes == [0, 0]
    return run


def assert_finished(job: Submitted, undisturbed: Path, *ends: str) -> None:
    """COMPLETED, after ends of these kinds, and as if nothing had happened."""
    job.wait("COMPLETED")
    assert job.ends() == [*ends, "finished"], job.log()
    assert_same(job.run, undisturbed)


def test_completed_with_the_losses_of_a_local_run(
    cluster: Cluster, little_corpus: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Two nodes with a rank each, and one node with two, under names that a shell would do something with."""
    jobs = {}
    for nodes, ranks, name in ((2, 1, "two nodes"), (1, 2, "one node's $(touch pwned)")):
        site = {**SITE, "NODES": str(nodes), "RANKS_PER_NODE": str(ranks), "HEARTBEAT_S": "1"}
        jobs[nodes] = submit(cluster, tmp_path / name, little_corpus, "--rank-logs", site=site)
    for nodes, job in jobs.items():
        assert_finished(job, undisturbed)
        log = job.log()
        assert log.count("fit\n") == nodes
        assert "last metrics" in log  # the heartbeat
        assert (job.run / "report.html").exists()
        assert (folder_of(job.run) / "rank-1.log").exists()
        assert not (folder_of(job.run) / "rank-0.log").exists()
        assert job.wait("COMPLETED")["Restarts"] == "0"
    assert not list(tmp_path.rglob("pwned"))


def test_warning_before_the_time_limit(cluster: Cluster, little_corpus: Path, undisturbed: Path, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path / "run", little_corpus, site=SLOW)
    job.wait_for_middle()
    cluster.run("scontrol", "update", f"JobId={job.jobs['pretrain']}", "EndTime=now+61seconds")
    assert_finished(job, undisturbed, "stopped")
    assert "stopped after step" in job.log()
    assert "(signal SIGUSR2)" in job.log()
    assert "start 2]" in job.log()  # one log over all starts


def test_preemption_by_a_higher_partition(cluster: Cluster, little_corpus: Path, undisturbed: Path, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path / "run", little_corpus, site={**SLOW, "PARTITION": "low"})
    job.wait_for_middle()
    preempt(cluster, job)
    assert_finished(job, undisturbed, "stopped")
    assert "(signal SIGTERM)" in job.log()


@pytest.mark.long
def test_preemption_before_the_training_has_begun(
    cluster: Cluster, little_corpus: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """There is nothing to save yet, and nobody to blame."""
    site = {**QUICK, "PARTITION": "low", "MOST_FRUITLESS_STARTS": "1"}
    job = submit(cluster, tmp_path / "run", little_corpus, site=site)
    cluster.wait_until(lambda: len(job.starts()) == 1, 30, job.log)
    preempt(cluster, job)
    job.wait("COMPLETED")
    *ends, last = job.ends()
    assert last == "finished"
    assert set(ends) <= set(BLAMELESS)  # which of them depends on how far it was
    assert_same(job.run, undisturbed)


def preempt(cluster: Cluster, job: Submitted) -> None:
    """A short job of the higher partition wants the same nodes."""
    nodes = f"--nodelist={','.join(job.nodes())}"
    cluster.run("sbatch", "--partition=main", nodes, "--exclusive", "--output=/dev/null", "--wrap=true")


def test_cancelled_stays_cancelled(cluster: Cluster, little_corpus: Path, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path / "run", little_corpus, site=SLOW)
    job.wait_for_middle()
    cluster.run("scancel", job.jobs["pretrain"])
    assert job.wait("CANCELLED")["Restarts"] == "0"
    assert job.ends()[0] == "terminated"
    assert set(job.ends()) <= {"terminated", "cancelled"}
    assert cluster.run("squeue", "--noheader").stdout == ""


@pytest.mark.long
def test_a_power_loss_and_a_cut_cable(cluster: Cluster, little_corpus: Path, undisturbed: Path, tmp_path: Path) -> None:
    """The power of the node with a job's batch shell and rank 0, and the cable of another job's other node, at the same time:
    it takes SLURM half a minute to get over it."""
    site = {**SLOW, "SBATCH_OPTIONS": "--exclusive"}
    jobs = [submit(cluster, tmp_path / name, little_corpus, site=site) for name in ("power", "cable")]
    for job in jobs:
        job.wait_for_middle()
    dark, cut = jobs[0].nodes()[0], jobs[1].nodes()[1]
    cluster.power_off(dark)
    cluster.cut(cut)
    try:
        for job in jobs:
            job.wait("COMPLETED")
            assert not {dark, cut} & set(job.nodes())
            assert [line["step"] for line in job.starts()] == [0, 20]
            assert_same(job.run, undisturbed)
    finally:
        cluster.boot(dark)
        cluster.heal(cut)
        for node in (dark, cut):
            cluster.wait_for_node(node, "idle", timeout_s=60)


def test_a_rank_that_exits_with_7(cluster: Cluster, little_corpus: Path, undisturbed: Path, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path / "run", little_corpus, site=with_fault("exit"))
    assert_finished(job, undisturbed, "crashed")
    assert "lost rank 1" in job.log()


def test_a_crash_loop_gives_up_and_says_why(cluster: Cluster, little_corpus: Path, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path / "run", little_corpus, site=with_fault("start"))
    job.wait("FAILED")
    assert job.ends() == ["crashed", "crashed", "gave up"]
    assert "gave up after 3 starts in a row without a new checkpoint" in job.log()
    shown = job.status()
    assert "FAILED" in shown
    assert "gave up" in shown


def test_what_the_program_refuses_is_not_tried_again(cluster: Cluster, little_corpus: Path, tmp_path: Path) -> None:
    """Between submission and start somebody else has put a run there."""
    job = submit(cluster, tmp_path / "run", little_corpus, site={**SITE, "SBATCH_OPTIONS": "--hold"})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("x")
    cluster.run("scontrol", "release", job.jobs["pretrain"])
    job.wait("FAILED")
    assert job.ends() == ["refused"]
    assert "not a run directory" in job.log()


@pytest.fixture
def full_disk(cluster: Cluster, tmp_path: Path) -> Iterator[str]:
    """A node whose disk is full: a file system of its own lies over the run's folder."""
    folder = folder_of(tmp_path / "run")
    folder.mkdir()
    cluster.on("n2", "mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", folder)
    yield "n2"
    cluster.on("n2", "umount", folder)


def test_a_node_that_is_not_fit_is_named_and_excluded(
    cluster: Cluster, little_corpus: Path, undisturbed: Path, tmp_path: Path, full_disk: str
) -> None:
    """--fresh, too, outlives the start that came to nothing."""
    shutil.copytree(undisturbed, tmp_path / "run")
    job = submit(cluster, tmp_path / "run", little_corpus, "--fresh", site=QUICK)
    assert_finished(job, undisturbed, "bad node")
    assert f"node {full_disk}: UNFIT: disk: " in job.log()
    assert job.wait("COMPLETED")["ExcNodeList"] == full_disk
    assert (tmp_path / "run.1" / "summary.json").exists()
    assert [line["step"] for line in job.starts()] == [0, 0]


def test_a_job_that_needs_the_unfit_node_fails(cluster: Cluster, little_corpus: Path, tmp_path: Path, full_disk: str) -> None:
    """Excluding it would leave the job in the queue for ever, and the rest of the chain with it."""
    batch = set_options(batch__global_sequences=6, batch__micro_sequences=1)
    site = {**QUICK, "NODES": "6"}
    job = submit(cluster, tmp_path / "run", little_corpus, "--then", "export", *batch, site=site)
    job.wait("FAILED")
    assert f"the job cannot run without {full_disk}: not requeued" in job.log()
    assert job.wait("CANCELLED", stage="export")["Reason"] == "DependencyNeverSatisfied"


@pytest.fixture(params=["--nodelist=n[1-2]", *long("--reservation=two")])
def wants_the_full_disk(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[str]:
    """An option that leaves a job no other node than the one of full_disk."""
    option = request.param
    if "reservation" in option:
        times = ("StartTime=now", "Duration=60")
        cluster.run("scontrol", "create", "reservation", "ReservationName=two", "Users=root", "Nodes=n1,n2", *times)
    yield option
    if "reservation" in option:
        cluster.run("scontrol", "delete", "ReservationName=two")


def test_a_job_whose_options_want_the_unfit_node_fails(
    cluster: Cluster, little_corpus: Path, tmp_path: Path, full_disk: str, wants_the_full_disk: str
) -> None:
    """Without the node it would be in the queue for ever."""
    job = submit(cluster, tmp_path / "run", little_corpus, site={**QUICK, "SBATCH_OPTIONS": wants_the_full_disk})
    job.wait("FAILED")
    assert job.ends() == ["gave up"]
    why = {
        "--nodelist=n[1-2]": "SBATCH_OPTIONS pins n2 (--nodelist or --nodefile)",
        "--reservation=two": "SLURM: allocation failure: Requested node configuration is not available",
    }[wants_the_full_disk]
    for told in (job.log(), job.status()):
        (line,) = [line for line in told.splitlines() if "the job cannot run without" in line]
        assert f"unfit: {full_disk}: disk: " in line
        assert f": the job cannot run without {full_disk}: not requeued; {why}" in line
    assert "FAILED" in job.status()


@pytest.fixture
def own_directories(cluster: Cluster, tmp_path: Path) -> Iterator[None]:
    """All nodes but the first have a directory of their own where the run's folder is."""
    folder = folder_of(tmp_path / "run")
    folder.mkdir()
    for node in cluster.nodes[1:]:
        (tmp_path / node).mkdir()
        cluster.on(node, "mount", "--bind", tmp_path / node, folder)
    yield
    for node in cluster.nodes[1:]:
        cluster.on(node, "umount", folder)


@pytest.mark.parametrize(
    ("nodes", "ends"), [(3, ["gave up"]), pytest.param(2, ["bad node", "gave up"], marks=pytest.mark.long)]
)
def test_a_directory_that_the_nodes_do_not_share(
    cluster: Cluster, little_corpus: Path, tmp_path: Path, own_directories: None, nodes: int, ends: list[str]
) -> None:
    """With two others it is at once clear that it is not they; one may be to blame, and the next may not."""
    batch = set_options(batch__global_sequences=6, batch__micro_sequences=1)
    job = submit(cluster, tmp_path / "run", little_corpus, *batch, site={**QUICK, "NODES": str(nodes)})
    job.wait("FAILED")
    folder, remedy = folder_of(tmp_path / "run"), "--run must be on a file system that all nodes share"
    for node in ("n2", "n3"):
        assert f"node {node}: UNFIT: directory: {folder} is not the directory that n1 sees: {remedy}" in job.log()
    assert f"gave up: no other node sees what n1 has just written to {folder}: {remedy}" in job.log()
    assert remedy in job.status()
    assert job.ends() == ends
    assert not list(tmp_path.rglob(".seen-by-all-*"))


@pytest.mark.long
@pytest.mark.slow
def test_the_controller_is_away_at_the_decision(
    cluster: Cluster, little_corpus: Path, undisturbed: Path, tmp_path: Path
) -> None:
    job = submit(cluster, tmp_path / "run", little_corpus, site=SLOW)
    job.wait_for_middle()
    cluster.run("scancel", "--signal=USR2", job.jobs["pretrain"])
    cluster.run("pkill", "-KILL", "slurmctld")
    try:
        cluster.wait_until(lambda: "stopped after step" in job.log(), 30, job.log)
        cluster.wait_until(lambda: job.log().count("Unable to contact slurm controller") > 0, 60, job.log)
    finally:
        cluster.run("slurmctld")
    assert_finished(job, undisturbed, "stopped")
