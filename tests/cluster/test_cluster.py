"""The test cluster is one: it runs jobs on several nodes and leaves nothing behind."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.cluster import cluster as cluster_module
from tests.cluster import conftest
from tests.cluster.cluster import HOST, PROGRAMS, Cluster, Shape, why_not
from tests.helpers.running import worker_environment

NODE_LOST_S = 60.0  # the longest until Slurm has missed a node on a busy machine; it takes 10 to 20 s on an idle one

STARTER = """
import signal
from cluster import Cluster, Shape
cluster = Cluster(Shape(nodes=2))
cluster.start()
cluster.wait(cluster.run("sbatch", "--parsable", "--wrap=exec sleep 1000").stdout.strip(), "RUNNING", timeout_s=30)
cluster.wait_until(lambda: "sleep" in cluster.on("n1", "ps", "-e").stdout, 10, lambda: "no sleep")
print(cluster.directory, flush=True)
signal.pause()
"""


def submit(cluster: Cluster, *options: str | Path, script: str) -> str:
    """The id of a job that runs lines of shell."""
    return cluster.run("sbatch", "--parsable", *options, f"--wrap={script}").stdout.strip()


def words(log: Path) -> list[str]:
    """What a job has written; it is RUNNING before it has a log."""
    return log.read_text().split() if log.exists() else []


def processes_below(directory: Path) -> dict[int, str]:
    """Those that have a file of this folder mounted, and so are on a host of the cluster that lives there: pid and name."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{directory}/" in (process / "mountinfo").read_text():
                found[int(process.name)] = (process / "comm").read_text().strip()
        except OSError:  # it has just ended
            continue
    return found


def test_nodes_run_steps(cluster: Cluster) -> None:
    assert [cluster.node_state(node) for node in cluster.nodes] == ["idle"] * 6
    assert sorted(cluster.run("srun", "--nodes=2", "hostname").stdout.split()) == ["n1", "n2"]


def test_hosts_are_apart(cluster: Cluster) -> None:
    """What they do not share is what goes wrong between the nodes of a real cluster."""
    for host in ("head", "n1", "n2"):
        names = {name: cluster.on(host, "getent", "hosts", name).stdout.split()[0] for name in ("head", "n1", "n2")}
        assert names == {"head": "10.77.0.1", "n1": "10.77.0.11", "n2": "10.77.0.12", host: "127.0.1.1"}
        assert cluster.on(host, "ls", "/dev/shm").stdout == ""
        cluster.on(host, "touch", "/dev/shm/here")
    assert not Path("/dev/shm/here").exists()
    assert cluster.on("n1", "pgrep", "slurmctld", check=False).stdout == ""


def test_gpus_are_handed_out(cluster: Cluster) -> None:
    """The variable that CUDA reads is set for each task."""
    step = cluster.run("srun", "--ntasks=2", "--gpus-per-task=1", "--nodes=1", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES")
    assert sorted(step.stdout.split()) == ["0", "1"]


def test_job_with_strange_names(cluster: Cluster, tmp_path: Path) -> None:
    name = """a = 'b' JobState=FAILED UserId=me "c\""""
    log = tmp_path / "the log='1' JobState=FAILED %a.txt"
    job_id = submit(cluster, f"--job-name={name}", f"--output={log}", "--array=3-4", "--comment=no Power=0", script="echo $0")
    fields = cluster.wait(f"{job_id}_4", "COMPLETED", timeout_s=30)
    assert (fields["JobName"], fields["Partition"], fields["ArrayTaskId"]) == (name, "main", "4")
    assert fields["StdOut"] == str(log).replace("%a", "4")
    assert Path(fields["StdOut"]).read_text().endswith("slurm_script\n")
    assert (fields["WorkDir"], fields["StdIn"]) == (str(cluster.directory / "home"), "/dev/null")
    cluster.wait(f"{job_id}_3", "COMPLETED", timeout_s=30)


def test_failures_tell_why(cluster: Cluster) -> None:
    job_id = submit(cluster, script="echo the reason; exit 3")
    with pytest.raises(AssertionError, match=r"(?s)has ended.*ExitCode=3:0.*the reason.*slurmctld.log.*WEXITSTATUS 3"):
        cluster.wait(job_id, "COMPLETED", timeout_s=30)
    with pytest.raises(AssertionError, match=r"on n2: ls /nowhere: code 2\n.*No such file"):
        cluster.on("n2", "ls", "/nowhere")
    assert cluster.run("sleep", "60", timeout_s=0.2, check=False).returncode == 124


def test_impossible_requests_are_refused(cluster: Cluster, large_cluster: Cluster) -> None:
    """By each as it is declared; both run at once."""
    eight_gpus = ["--nodes=4", "--gpus-per-node=8", "--ntasks-per-node=8", "--mem=1500G"]
    nine_gpus = [word.replace("=8", "=9") for word in eight_gpus]
    assert "to start at" in large_cluster.run("sbatch", "--test-only", *eight_gpus, "--wrap=true").stderr
    for where, request in ((large_cluster, nine_gpus), (cluster, eight_gpus), (cluster, ["--time=1-01:00:00"])):
        refused = where.run("sbatch", "--test-only", *request, "--wrap=true", check=False)
        assert refused.returncode == 1
        assert "allocation failure" in refused.stderr


@pytest.mark.usefixtures("slurm")
def test_nothing_outlives_its_starter() -> None:
    """Killed, it can do nothing about its daemons, nor about their jobs."""
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER], env=worker_environment(), cwd=HOST.parent, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    directory = Path(starter.stdout.readline().strip())
    try:
        assert {"munged", "slurmctld", "slurmd", "sleep"} <= set(processes_below(directory).values())
    finally:
        starter.kill()
        starter.communicate()
    deadline = time.monotonic() + 20
    while left := processes_below(directory):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    shutil.rmtree(directory)


@pytest.mark.usefixtures("slurm")
def test_stop_removes_all() -> None:
    cluster = Cluster(Shape(nodes=1))
    cluster.start()
    assert processes_below(cluster.directory)
    cluster.stop()
    assert not processes_below(cluster.directory)
    assert not cluster.directory.exists()
    cluster.stop()


@pytest.mark.usefixtures("slurm")
def test_refusal_of_slurm_is_told() -> None:
    """A start that fails says what the daemon said, and leaves nothing."""
    cluster = Cluster(Shape(nodes=1, extra_conf="NoSuchParameter=1"))
    with pytest.raises(AssertionError, match=r"(?s)on head: slurmctld: code 1.*NoSuchParameter"):
        cluster.start()
    assert not cluster.directory.exists()


def test_why_not_says_nothing_where_a_cluster_runs(cluster: Cluster) -> None:
    assert why_not() is None


def patch_lookup(patch: pytest.MonkeyPatch, folder: Path, programs: Iterable[str]) -> None:
    """As root on a machine that has these programs alone; they do nothing, well."""
    for program in programs:
        (folder / program).symlink_to("/bin/true")
    patch.setattr(os, "geteuid", lambda: 0)
    patch.setenv("PATH", str(folder))
    patch.setattr(cluster_module, "DAEMON_FOLDERS", ("/no/sbin",))


@pytest.mark.parametrize("absent", [("munged", "slurmctld", "slurmd"), ("unshare",), PROGRAMS])
def test_why_not_names_the_missing_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, absent: tuple[str, ...]) -> None:
    patch_lookup(monkeypatch, tmp_path, set(PROGRAMS) - set(absent))
    assert str(why_not()).startswith(f"a SLURM cluster needs {', '.join(absent)} in PATH, /no/sbin (")


def test_why_not_names_the_missing_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    patch_lookup(monkeypatch, tmp_path, PROGRAMS)
    monkeypatch.setattr(cluster_module, "CONFIGURATION", tmp_path / "etc")
    assert str(why_not()).startswith(f"a SLURM cluster needs the folder {tmp_path / 'etc'}, ")
    (tmp_path / "etc").mkdir()
    assert why_not() is None


def test_why_not_says_that_it_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert why_not() == "a SLURM cluster of namespaces needs root"


def test_where_no_cluster_can_be_its_tests_are_skipped(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Every test of this folder but those of the reason has a fixture that skips it, before a cluster is tried."""
    monkeypatch.setattr(conftest, "why_not", lambda: "no cluster today")
    monkeypatch.setattr(conftest, "Cluster", lambda shape: pytest.fail(f"a cluster of {shape} was tried"))
    skipping = {"cluster", "large_cluster", "slurm"}
    for name in sorted(skipping):
        with pytest.raises(pytest.skip.Exception, match="no cluster today"):
            list(getattr(conftest, name)._get_wrapped_function()() or ())
    for item in request.session.items:
        if item.path.parent == Path(__file__).parent and "why_not" not in item.name and item is not request.node:
            assert skipping & set(getattr(item, "fixturenames", ())), item.nodeid
