"""Training in a PyTorchJob comes to its end."""

from __future__ import annotations

import pytest

from tests.cluster.conftest import Launch
from tests.cluster.kit import until


@pytest.mark.cluster_short
def test_a_job_of_two_pods_on_two_nodes_trains_to_its_end(launch: Launch) -> None:
    launched = launch()
    assert launched.ended(300) == 0, launched.said
    (job,) = launched.jobs()
    assert [c["type"] for c in job["status"]["conditions"] if c["status"] == "True"][-1] == "Succeeded"
    assert len({pod["spec"]["nodeName"] for pod in launched.pods()}) == 2
    until("every pod is over", lambda: not launched.running_pods(), 30)
