"""Whether a Workflow has ended: only where this pod can know it."""

from __future__ import annotations

from pathlib import Path

import pytest

from steerlm_core.kube.api import client as api
from steerlm_core.kube.api import own_pod as own_pod
from steerlm_core.kube.api.own_pod import workflow_has_ended
from tests.kube.fake_api import FakeApi


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    """A pod's view of an API server that has two Workflows."""
    (tmp_path / "namespace").write_text("team-a")
    (tmp_path / "ca.crt").write_text("certificate of this cluster")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setattr(api, "_OWN_NAMESPACE", tmp_path / "namespace")
    monkeypatch.setattr(api, "_OWN_AUTHORITY", tmp_path / "ca.crt")
    fake = FakeApi()
    fake.jobs = {"busy": {"status": {"phase": "Running"}}, "failed": {"status": {"phase": "Failed"}}}
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "busy", "uid": "1"}
    fake.jobs["this-pod"] = {"metadata": {"namespace": "team-a", "ownerReferences": [owner]}}
    monkeypatch.setenv("POD_NAME", "this-pod")
    monkeypatch.setattr(own_pod, "connect", lambda: fake)
    return fake


@pytest.mark.parametrize(("name", "ended"), [("busy", False), ("failed", True), ("gone", True)])
def test_a_workflow_of_this_namespace_is_looked_up(cluster: FakeApi, name: str, ended: bool) -> None:
    mine = own_pod.own_workflow()
    assert mine is not None
    assert (mine.name, mine.namespace) == ("busy", "team-a")
    assert workflow_has_ended(name, mine.namespace, api.own_cluster()) is ended
    assert workflow_has_ended(name, "", "") is ended  # as a claim of an older release names it


def test_of_a_workflow_elsewhere_nothing_is_known(cluster: FakeApi) -> None:
    assert workflow_has_ended("busy", "team-b", api.own_cluster()) is None
    assert workflow_has_ended("gone", "team-a", "another") is None
    assert cluster.calls == []
