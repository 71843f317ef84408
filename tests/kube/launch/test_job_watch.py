"""What a launcher sees of its job: the pods of this one and of no earlier, and the log of the master of the day."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from steerlm_core.kube.api.client import ForbiddenError
from steerlm_core.kube.api.watch import Snapshot
from steerlm_core.kube.launch import job_watch as job_watch_module
from steerlm_core.kube.launch.job_watch import JobWatch
from tests.kube.fake_api import FakeApi

JOB = {
    "metadata": {"name": "train-0", "uid": "new"},
    "spec": {"pytorchReplicaSpecs": {"Master": {"replicas": 1}}, "runPolicy": {}},
}


def pod(uid: str, owner: str = "new") -> dict[str, Any]:
    labels = {"training.kubeflow.org/replica-type": "master"}
    owners = [{"kind": "PyTorchJob", "name": "train-0", "uid": owner}]
    return {
        "metadata": {"name": "train-0-master-0", "uid": uid, "labels": labels, "ownerReferences": owners},
        "status": {
            "phase": "Running",
            "containerStatuses": [{"name": "pytorch", "ready": True, "state": {"running": {}}}],
        },
    }


class Seen:
    """Stands for an informer, the heartbeat and a followed log."""

    listed: ClassVar[dict[str, list[Any]]]
    followed: ClassVar[list[str]]
    failed, error, progress, outcomes, step_seconds = None, "", None, (), 0.0

    def __init__(self, _: Any, path: Any, *__: Any, **___: Any) -> None:
        self.path = str(path)
        if "master" in self.path:
            self.followed.append(f"follow {len(self.followed)}")

    @property
    def latest(self) -> Snapshot:
        return Snapshot(tuple(self.listed[self.path.rsplit("/", 1)[-1]]))

    def close(self) -> None:
        if "master" in self.path:
            self.followed.append("close")


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[JobWatch]:
    Seen.listed, Seen.followed = {"pytorchjobs": [JOB], "pods": []}, []
    for name in ("Informer", "HeartbeatExchange", "MasterLog"):
        monkeypatch.setattr(job_watch_module, name, Seen)
    with JobWatch(FakeApi(), None, JOB, "me", 1.0) as found:  # type: ignore[arg-type]
        yield found


def test_pods_of_an_earlier_job_of_the_same_name_are_not_seen(watch: JobWatch) -> None:
    """A run that was terminated and started again at once has the same name while the old pods end."""
    Seen.listed["pods"] = [pod("a", owner="old") | {"status": {"phase": "Failed"}}]
    watch.refresh()
    assert watch.pods == ()
    Seen.listed["pods"].append(pod("b"))
    watch.refresh()
    observed = watch.observed()
    assert observed is not None
    assert [found["metadata"]["uid"] for found in observed.pods] == ["b"]
    assert observed.first_uids == {"train-0-master-0": "b"}


def test_the_log_of_the_master_that_comes_after_a_suspension_is_followed(watch: JobWatch) -> None:
    Seen.listed["pods"] = [pod("a")]
    watch.refresh()
    watch.refresh()
    Seen.listed["pods"] = [pod("b")]
    watch.refresh()
    assert Seen.followed == ["follow 0", "close", "follow 2"]


def test_events_that_were_refused_once_are_asked_for_again(watch: JobWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has just started knows no permissions."""
    api = watch._api
    assert isinstance(api, FakeApi)
    monkeypatch.setattr(job_watch_module, "_EVENT_SECONDS", 0.0)
    api.spoiled["GET"] = [ForbiddenError("no", 403)]
    watch.refresh()
    assert watch.observed().events is None  # type: ignore[union-attr]
    monkeypatch.setattr(FakeApi, "_act", lambda *_: {"items": []})
    watch.refresh()
    assert watch.observed().events == []  # type: ignore[union-attr]
