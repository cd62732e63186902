"""A SLURM cluster for tests: real daemons, on hosts that are Linux namespaces of this machine.

with Cluster(Shape(nodes=2)) as cluster:
    job_id = cluster.run("sbatch", "--parsable", script).stdout.strip()
    cluster.wait(job_id, "COMPLETED", timeout_s=30)

The hosts: `head`, where slurmctld runs and users log in, and `n1`, `n2`, …, each with a slurmd, joined by a bridge of the head.
They differ in name, network, processes, System V objects, /dev/shm and /etc/hosts, and share the file system. As on Debian,
a host's own name is 127.0.1.1 to itself, and other hosts' names are their addresses. The nodes' namespaces are inside the
head's, which ends when the pipe to its first process closes: however this process ends, nothing stays behind.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.cluster.configuration import HEAD, Shape, munged, write_configuration

NAMESPACES = ("net", "uts", "mount", "pid", "ipc")
PROGRAMS = ("unshare", "nsenter", "mount", "ip", "hostname", "munged", "slurmctld", "slurmd", "scontrol", "sinfo")
FINAL_STATES = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
}
POLL_S = 0.1
START_S = 60.0  # the longest that daemons may take on a busy machine; they need one second
HOST = Path(__file__).parent / "host.sh"
SETTINGS = Path("/etc/slurm")  # over which host.sh mounts the cluster's

# What scontrol writes of a job. Only the name, and the paths and remarks from Command on, may hold anything at all.
JOB = re.compile(r"(JobId=\S+(?: \w+=\S+)*?) JobName=(.*) (UserId=\S+ GroupId=\S+ MCS_label=.*?)(?: Command=(.*))?")
AFTER_COMMAND = re.compile(r" (WorkDir|Std(?:Err|In|Out)|\w*Comment|Power|\w+Tres|Tres\w+|NtasksPerTRES|Mail(?:User|Type))=")


@dataclass(frozen=True)
class Host:
    """`process` lasts as long as the host; `pid` is the host's first process as the host (or machine) around it numbers it, and
    `enter` the start of a command that is to run there.
    """

    process: subprocess.Popen[str]
    pid: str
    enter: list[str]


class Cluster:
    """Started by start() or `with`, and then idle; ended by stop(), which removes `directory` unless CLUSTER_KEEP is set."""

    def __init__(self, shape: Shape | None = None) -> None:
        self.shape = shape or Shape()
        self.nodes = tuple(self.shape.addresses())
        self.directory: Path  # from the start on
        self._hosts: dict[str, Host] = {}  # those whose power is on
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> "Cluster":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """The hosts and their daemons, until all nodes are idle. AssertionError, and nothing left, if they do not come."""
        with contextlib.ExitStack() as undo:
            self.directory = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # short: it will hold unix sockets
            if "CLUSTER_KEEP" not in os.environ:
                undo.callback(shutil.rmtree, self.directory)
            write_configuration(self.directory, self.shape)
            undo.callback(self._end_hosts)
            self._start_host("head", [])
            self.run("ip", "link", "add", "br0", "up", "type", "bridge")
            self.run("ip", "address", "add", f"{HEAD}/24", "dev", "br0")
            self.run(*munged(self.directory))
            self.run("slurmctld")
            for node in self.nodes:
                self._start_node(node)
            self.wait_until(lambda: self.run("sinfo", check=False).returncode == 0, START_S, lambda: "no slurmctld answers")
            for node in self.nodes:
                self.wait_for_node(node, "idle", timeout_s=START_S)
            self._undo = undo.pop_all()

    def stop(self) -> None:
        """The end of all hosts, at once. Does nothing where nothing runs."""
        self._undo.close()

    def run(
        self,
        *command: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 60,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """A command on the head, to its end; `env` on top of this process's environment, without its SLURM variables.

        In `cwd`, or in the folder `home` of the cluster's directory. After `timeout_s` it is ended, and its code is 124.
        `check`: AssertionError with its output unless its code is 0.
        """
        return self.on("head", *command, env=env, cwd=cwd, timeout_s=timeout_s, check=check)

    def on(
        self,
        host: str,
        *command: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 60,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """run(), but on a node. KeyError if its power is off."""
        variables = [f"{name}={value}" for name, value in (env or {}).items()]
        limited = ["timeout", "--kill-after=5", str(timeout_s), "env", f"--chdir={cwd or self.directory / 'home'}", *variables]
        done = subprocess.run(
            [*self._hosts[host].enter, *limited, *map(str, command)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=_environment(),
            check=False,
        )
        if check and done.returncode != 0:
            words = " ".join(map(str, command))
            raise AssertionError(f"on {host}: {words}: code {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def enter(self, host: str) -> list[str]:
        """The words before a command that make it run there. KeyError if its power is off."""
        return self._hosts[host].enter

    def cut(self, node: str) -> None:
        """Pull the network cable: the node goes on, and nothing reaches or leaves it."""
        self.run("ip", "link", "set", node, "down")

    def heal(self, node: str) -> None:
        """Put the network cable back; it may be in already."""
        self.run("ip", "link", "set", node, "up")
        if self.node_state(node).endswith("*"):
            # With nodes held for dead the controller tries every 20th time only, 40 s here; so their slurmd is to speak up.
            self.on(node, "kill", "-HUP", (self.directory / "run" / f"{node}.pid").read_text().strip())

    def power_off(self, node: str) -> None:
        """End everything on the node, which cannot say goodbye: its connections stay open at their other ends."""
        self.run("ip", "link", "delete", node)
        host = self._hosts.pop(node)
        self.run("kill", "-KILL", host.pid)
        host.process.communicate()

    def boot(self, node: str) -> None:
        """Power on, if it is off. Its jobs of before are lost, even if the controller had not missed it yet."""
        if node not in self._hosts:
            # The controller knows a reboot by the kernel's time of start, which is the machine's here.
            self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=rebooted")
            self._start_node(node)

    def node_state(self, node: str) -> str:
        """As sinfo has it: idle, mixed, allocated, down, …, with an asterisk while the node does not answer."""
        return self.run("sinfo", "--noheader", "--partition=main", f"--nodes={node}", "--format=%T").stdout.strip()

    def job(self, job_id: str) -> dict[str, str]:
        """The fields of one job as `scontrol show job` has them; of an array, one element: 12_3. AssertionError without one."""
        return _job_fields(self.run("scontrol", "--oneliner", "show", "job", job_id).stdout.strip())

    def wait(self, job_id: str, *states: str, timeout_s: float) -> dict[str, str]:
        """The fields of a job when it is in one of the states. AssertionError after the time, or if it has ended in another."""
        deadline = time.monotonic() + timeout_s
        while (fields := self.job(job_id))["JobState"] not in states:
            ended = fields["JobState"] in FINAL_STATES
            if ended or time.monotonic() > deadline:
                when = "has ended and" if ended else f"after {timeout_s} s"
                listed = "\n".join(f"  {key}={value}" for key, value in fields.items())
                log = _tail(Path(fields.get("StdOut", "")))
                raise AssertionError(
                    f"job {job_id} {when} is not {' or '.join(states)}:\n{listed}\n{log}\n{self._controller_log()}"
                )
            time.sleep(POLL_S)
        return fields

    def wait_for_node(self, node: str, *states: str, timeout_s: float) -> None:
        """Until node_state() is one of these; AssertionError after the time."""
        self.wait_until(
            lambda: self.node_state(node) in states,
            timeout_s,
            lambda: f"{node} is {self.node_state(node)}, not {' or '.join(states)}",
        )

    def wait_until(self, what: Callable[[], bool], timeout_s: float, describe: Callable[[], str]) -> None:
        """Until `what` is true; after the time AssertionError with what `describe` says then."""
        deadline = time.monotonic() + timeout_s
        while not what():
            if time.monotonic() > deadline:
                raise AssertionError(f"{describe()} after {timeout_s} s\n{self._controller_log()}")
            time.sleep(POLL_S)

    def _start_host(self, name: str, enter: list[str]) -> None:
        """New namespaces inside those that `enter` leads to."""
        namespaces = [f"--{kind}" for kind in NAMESPACES]
        unshare = ["unshare", *namespaces, "--fork", "--kill-child"]
        errors = self.directory / "log" / f"{name}.host"
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                [*enter, *unshare, "bash", str(HOST), name, str(self.directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for pytest
            )
        assert process.stdout is not None
        pid = process.stdout.readline().strip()
        if not pid:
            process.communicate()
            raise AssertionError(f"host {name} did not start: {errors.read_text()}")
        inside = [*enter, "nsenter", *namespaces, "--target", pid, "--"]
        self._hosts[name] = Host(process, pid, inside)

    def _start_node(self, node: str) -> None:
        self._start_host(node, self._hosts["head"].enter)
        pid = self._hosts[node].pid
        self.run("ip", "link", "add", node, "up", "master", "br0", "type", "veth", "peer", "name", "eth0", "netns", pid)
        self.on(node, "ip", "address", "add", f"{self.shape.addresses()[node]}/24", "dev", "eth0")
        self.on(node, "ip", "link", "set", "eth0", "up")
        self.on(node, "slurmd")

    def _end_hosts(self) -> None:
        """With the first process of the head all others end, before the kernel reports its end."""
        if "head" in self._hosts:
            with contextlib.suppress(ProcessLookupError):  # it has ended already
                os.kill(int(self._hosts["head"].pid), signal.SIGKILL)
        for host in self._hosts.values():
            host.process.communicate()
        self._hosts.clear()

    def _controller_log(self) -> str:
        return _tail(self.directory / "log" / "slurmctld.log")


def why_not() -> str | None:
    """Why there can be no cluster on this machine; None if there can."""
    if os.geteuid() != 0:
        return "a SLURM cluster of namespaces needs root"
    environment = _environment()
    missing = [program for program in PROGRAMS if shutil.which(program, path=environment["PATH"]) is None]
    if missing:
        return f"a SLURM cluster needs {', '.join(missing)} (Debian, Ubuntu: apt-get install slurm-wlm munge iproute2)"
    if not SETTINGS.is_dir():
        return f"a SLURM cluster needs SLURM as Debian lays it out, with its settings in {SETTINGS}: there is no such folder"
    tried = subprocess.run(["unshare", "-nump", "--fork", "true"], env=environment, capture_output=True, text=True, check=False)
    return f"a SLURM cluster needs namespaces: {tried.stderr.strip()}" if tried.returncode else None


def _environment() -> dict[str, str]:
    """This process's, for one who has just logged in: nothing of a job that this may run in; daemons are found."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "SALLOC", "SRUN"))}
    folders = [*filter(None, os.environ.get("PATH", "").split(":")), "/usr/sbin", "/sbin"]
    return kept | {"PATH": ":".join(dict.fromkeys(folders))}


def _job_fields(record: str) -> dict[str, str]:
    """One job of `scontrol --oneliner show job`."""
    parts = JOB.fullmatch(record)
    if parts is None:
        raise AssertionError(f"not one job: {record}")
    before, name, plain, rest = parts.groups()
    fields = dict(word.split("=", 1) for word in f"{before} {plain}".split(" ") if "=" in word)
    command, *others = AFTER_COMMAND.split(f"{rest or ''}")
    return {**fields, "JobName": name, "Command": command, **dict(zip(others[::2], others[1::2], strict=True))}


def _tail(log: Path, lines: int = 30) -> str:
    """The end of a log under its name; says so where there is none."""
    if not log.is_file():
        return f"(no file {log})"
    return "\n".join([f"--- {log}", *log.read_text(errors="replace").splitlines()[-lines:]])
