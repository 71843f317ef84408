"""The cluster, with the definitions of prometheus-operator's objects."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.kit import kubectl, running_cluster
from tests.manifests.applying import CRDS


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    with running_cluster():
        kubectl("apply", "--server-side", "-f", str(CRDS))
        kubectl("wait", "--for=condition=Established", "-f", str(CRDS), "--timeout=30s")
        yield
