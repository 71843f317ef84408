"""Training in a PyTorchJob comes to its end, and tells nobody a secret."""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from tests.cluster.conftest import Launch
from tests.cluster.kit import kubectl, until
from tests.cluster.launched import Launched
from tests.cluster.place import SECRET, Place
from tests.cluster.table import Table
from tests.services.s3 import ACCESS_KEY, SECRET_KEY

# Everything that the API server could return of what a run has to do with, Secrets excepted.
KINDS = "pods,services,configmaps,events,pytorchjobs,serviceaccounts,roles,rolebindings"


@pytest.mark.cluster_short
def test_a_job_of_two_pods_on_two_nodes_trains_to_its_end(launch: Launch, place: Place, table: Table) -> None:
    started = time.time()
    launched = launch()
    assert launched.ended(300) == 0, launched.said
    (job,) = launched.jobs()
    assert [c["type"] for c in job["status"]["conditions"] if c["status"] == "True"][-1] == "Succeeded"
    assert len({pod["spec"]["nodeName"] for pod in launched.pods()}) == 2
    until("every pod is over", lambda: not launched.running_pods(), 30)
    _no_credential_is_told(launched, place)
    table.cost(_seconds(launched, started))


def _no_credential_is_told(launched: Launched, place: Place) -> None:
    told = [launched.said, kubectl("-n", place.name, "get", KINDS, "-o", "json")]
    told += [kubectl("-n", place.name, "logs", pod["metadata"]["name"]) for pod in launched.pods()]
    assert SECRET in told[1]
    for text in told:
        assert SECRET_KEY not in text
        assert ACCESS_KEY not in text


def _seconds(launched: Launched, started: float) -> dict[str, float]:
    """Where the seconds of a step go, by the clocks of the API server and of the launcher, which here are one."""
    offset = time.time() - time.monotonic()
    (job,) = launched.jobs()
    states = [pod["status"]["containerStatuses"][0]["state"]["terminated"] for pod in launched.pods()]
    at = {
        "launcher: start, imports, permissions": _instant(job["metadata"]["creationTimestamp"]),
        "pods: scheduled, init container, all started": max(_instant(state["startedAt"]) for state in states),
        "then: the master has its inputs, verified": launched.wait_for("the inputs are here", 1) + offset,
        "ranks: imports, rendezvous, model, oracle, first optimizer step": launched.wait_for(r"step \d+ of", 1)
        + offset,
        "the other steps": launched.wait_for("training is done", 1) + offset,
        "model stored and committed": launched.wait_for("is committed", 1) + offset,
        "launcher: success noticed": launched.wait_for("is over: done", 1) + offset,
    }
    names, ends = list(at), [started, *at.values()]
    return {name: max(0.0, ends[number + 1] - ends[number]) for number, name in enumerate(names)}


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
