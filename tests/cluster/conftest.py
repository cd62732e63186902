"""The clusters, one of a kind for all tests; skipped, visibly, where none can be."""

from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster, Shape, why_not


@pytest.fixture(scope="session", autouse=True)
def possible() -> None:
    """For every test of this folder: some start a cluster of their own."""
    reason = why_not()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Six nodes of 4 CPUs, 2 fake GPUs and 8 GB. A test leaves them idle, or the next has to wait."""
    with Cluster(Shape(nodes=6)) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def large_cluster() -> Iterator[Cluster]:
    """Four nodes of 192 CPUs, 8 GPUs and 2 TB, by their own account: to be asked what they would run, never to run it."""
    with Cluster(Shape(nodes=4, cpus=192, gpus=8, memory_mb=2_000_000)) as cluster:
        yield cluster
