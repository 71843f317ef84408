"""Training in a PyTorchJob comes to its end, and tells nobody a secret."""

from __future__ import annotations

import time

import pytest

from steerlm_core.kube.job.state import has_started, name_of
from tests.cluster.conftest import Launch
from tests.cluster.kit import kubectl
from tests.cluster.launched import Launched
from tests.cluster.place import SECRET, Place
from tests.cluster.table import Table
from tests.waiting import until


@pytest.mark.cluster_short
def test_a_job_of_two_pods_on_two_nodes_trains_to_its_end(launch: Launch, place: Place, table: Table) -> None:
    launched = launch()
    started = time.monotonic()
    created = until("a job", lambda: launched.jobs() and time.monotonic(), 120, 0.1)
    running = until("all containers run", lambda: _all_started(launched) and time.monotonic(), 120, 0.1)
    assert launched.ended(300) == 0, launched.said
    (job,) = launched.jobs()
    assert [c["type"] for c in job["status"]["conditions"] if c["status"] == "True"][-1] == "Succeeded"
    assert len({pod["spec"]["nodeName"] for pod in launched.pods()}) == 2
    until("every pod is over", lambda: not launched.running_pods(), 30)
    assert all(SECRET in str(pod["spec"]) for pod in launched.pods())  # the keys do come from there
    place.tells_no_credential([kubectl("-n", place.name, "logs", name_of(pod)) for pod in launched.pods()])
    table.cost(_seconds(launched, started, created, running))


def _all_started(launched: Launched) -> bool:
    pods = launched.pods()
    return len(pods) == 2 and all(has_started(pod) for pod in pods)


def _seconds(launched: Launched, started: float, created: float, running: float) -> dict[str, float]:
    """Where the seconds of a step go, by one clock: this machine's may be set while the test runs."""
    at = {
        "launcher: start, imports, permissions, the job created": created,
        "pods: scheduled, init container, all started, inputs verified": max(
            running, launched.wait_for("the inputs are here", 1)
        ),
        "ranks: imports, rendezvous, model, oracle, first optimizer step": launched.wait_for(r"step \d+ of", 1),
        "the other steps": launched.wait_for("training is done", 1),
        "model stored and committed": launched.wait_for("is committed", 1),
        "launcher: success noticed": launched.wait_for("is over: done", 1),
    }
    names, ends = list(at), [started, *at.values()]
    return {name: ends[number + 1] - ends[number] for number, name in enumerate(names)}
