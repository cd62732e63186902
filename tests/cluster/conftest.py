"""The clusters, one of a kind for all tests; skipped, visibly, where none can be."""

from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster, Shape, why_not


def skip_without_slurm() -> None:
    """Skips the test, with the reason, where no cluster can be."""
    reason = why_not()
    if reason:
        pytest.skip(reason)


@pytest.fixture
def slurm() -> None:
    """For a test that starts a cluster of its own."""
    skip_without_slurm()


def started(shape: Shape) -> Iterator[Cluster]:
    """A cluster while a fixture lives."""
    skip_without_slurm()
    with Cluster(shape) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Six nodes of 4 CPUs, 2 fake GPUs and 8 GB. A test leaves them idle, or the next has to wait."""
    yield from started(Shape(nodes=6))


@pytest.fixture(scope="session")
def large_cluster() -> Iterator[Cluster]:
    """Four nodes of 192 CPUs, 8 GPUs and 2 TB, by their own account: to be asked what they would run, never to run it."""
    yield from started(Shape(nodes=4, cpus=192, gpus=8, memory_mb=2_000_000))
