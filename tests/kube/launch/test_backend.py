"""What the backend makes of the place that it runs in: the Workflow of its own pod owns the jobs, where it can."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from steerlm_core.kube.launch import backend as backend_module
from steerlm_core.kube.launch.backend import PyTorchJobBackend
from steerlm_core.platform import PlatformConfig
from steerlm_core.run import Run
from steerlm_core.steps.context import StepContext
from tests.kube.fake_api import FakeApi

OWNER = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run-1", "uid": "u"}
POD = {
    "metadata": {"name": "run-1-train", "namespace": "pipelines", "ownerReferences": [{**OWNER, "controller": True}]},
    "spec": {"containers": [{"name": "main", "image": "image:1"}]},
}


class Seen:
    """Stands for the launcher, and for the events of the step: keeps what it is given."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.job: dict[str, Any] = {}
        self.workflow: Any = None

    def launcher(self, api: Any, store: Any, config: Any, build: Any, events: Any, **others: Any) -> Any:
        self.job, self.workflow = build(0), others["workflow"]
        return SimpleNamespace(run=lambda: None)

    def warning(self, message: str) -> None:
        self.warnings.append(message)


def trained(monkeypatch: pytest.MonkeyPatch, namespace: str) -> Seen:
    """Train from the pod of a Workflow in `pipelines`, with jobs in a namespace."""
    seen, api = Seen(), FakeApi()
    api.namespace = namespace
    for name, value in {
        "connect": lambda namespace: api,
        "own_pod": lambda api: POD,
        "missing_permissions": lambda api, among: [],
        "model_output": lambda context: SimpleNamespace(existing=dict),
        "JobTarget": SimpleNamespace(of=lambda *words: TARGET),
        "Launcher": seen.launcher,
    }.items():
        monkeypatch.setattr(backend_module, name, value)
    platform = PlatformConfig.model_validate({"train_job": {"namespace": namespace}})
    backend = PyTorchJobBackend(cast(Run, SimpleNamespace(root="s3://b/r", platform=platform)))
    store = SimpleNamespace(root="s3://b/r")
    backend.train(cast(StepContext, SimpleNamespace(store=store, run_id="run", config=None, iteration=0, events=seen)))
    return seen


TARGET = backend_module.JobTarget("s3://b/r", "run", 0, "train", "1")


def test_the_workflow_owns_the_job_in_its_own_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = trained(monkeypatch, "pipelines")
    assert seen.job["metadata"]["ownerReferences"] == [OWNER]
    assert seen.workflow.namespace == "pipelines"
    assert not seen.warnings


def test_a_job_in_another_namespace_has_no_owner_and_what_that_costs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = trained(monkeypatch, "training")
    assert seen.job["metadata"]["namespace"] == "training"
    assert "ownerReferences" not in seen.job["metadata"]
    assert (seen.workflow.name, seen.workflow.namespace) == ("run-1", "pipelines")
    (warning,) = seen.warnings
    assert "train_job.namespace is training, and the Workflow run-1 is in pipelines" in warning
