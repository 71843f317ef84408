"""A job is created exactly once, whatever the API server answers."""

from __future__ import annotations

from typing import Any

import pytest

from steerlm_core.kube.api.client import ClusterError, ForbiddenError
from steerlm_core.kube.job.failure_classes import TrainJobError
from steerlm_core.kube.job.spec import SPEC_HASH
from steerlm_core.kube.launch import submit as submit_module
from steerlm_core.kube.launch.submit import submit
from tests.kube.fake_api import FakeApi

WEBHOOK_DOWN = 'failed calling webhook "validator": connect: connection refused'


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit_module.time, "sleep", lambda seconds: None)


def job(sha256: str = "h", owner: str = "") -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "train-1", "annotations": {SPEC_HASH: sha256}}
    if owner:
        metadata["ownerReferences"] = [{"kind": "Workflow", "name": owner, "uid": owner}]
    return {"metadata": metadata, "spec": {}}


def submitted(api: FakeApi, manifest: dict[str, Any], seconds: float = 60.0) -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    return submit(api, manifest, seconds, said.append, lambda: None), said


def test_a_job_is_created() -> None:
    api = FakeApi()
    found, said = submitted(api, job())
    assert found["metadata"]["uid"]
    assert api.calls == ["POST pytorchjobs"]
    assert not said


def test_the_same_job_is_adopted_and_gets_one_more_owner() -> None:
    api = FakeApi()
    submitted(api, job(owner="first"))
    found, _ = submitted(api, job(owner="second"))
    assert [owner["name"] for owner in found["metadata"]["ownerReferences"]] == ["first", "second"]
    found, _ = submitted(api, job(owner="second"))
    assert api.calls.count("PATCH train-1") == 1
    found, _ = submitted(api, job(owner="first"))
    assert [owner["name"] for owner in found["metadata"]["ownerReferences"]] == ["second", "first"]


def test_who_has_no_owner_for_a_job_frees_it_of_those_it_has() -> None:
    """A laptop goes on with what a pipeline began, whose Workflow is collected some day: the job must outlive it."""
    api = FakeApi()
    submitted(api, job(owner="first"))
    found, _ = submitted(api, job())
    assert found["metadata"]["ownerReferences"] == []
    assert "DELETE train-1" not in api.calls


def test_a_job_of_another_spec_keeps_its_name() -> None:
    api = FakeApi()
    submitted(api, job("other"))
    with pytest.raises(TrainJobError, match=r"train-1: name_taken: .* other, wanted h") as error:
        submitted(api, job())
    assert error.value.kind == "name_taken"
    assert api.jobs["train-1"]["metadata"]["annotations"][SPEC_HASH] == "other"


@pytest.mark.parametrize("status", [0, 500, 504])
def test_a_create_whose_answer_was_lost_is_not_repeated(status: int) -> None:
    api = FakeApi()
    api.lose("POST", ClusterError("no answer", status))
    submitted(api, job())
    assert api.calls == ["POST pytorchjobs", "GET train-1"]


def test_a_webhook_that_is_down_is_waited_for_and_said_once() -> None:
    api = FakeApi()
    api.spoiled["POST"] = [ClusterError(WEBHOOK_DOWN, 500) for _ in range(3)]
    _, said = submitted(api, job())
    assert api.calls.count("POST pytorchjobs") == 4
    assert len(said) == 1
    assert "webhook" in said[0]


def test_a_job_that_is_being_deleted_is_waited_for() -> None:
    api = FakeApi()
    submitted(api, job())
    api.jobs["train-1"]["metadata"]["deletionTimestamp"] = "now"
    waits = 0

    def check() -> None:
        nonlocal waits
        waits += 1
        if waits == 3:
            del api.jobs["train-1"]

    found = submit(api, job(), 60.0, lambda words: None, check)
    assert "deletionTimestamp" not in found["metadata"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ClusterError("Unauthorized", 401), "forbidden"),
        (ForbiddenError("admission webhook denied the request: no Master", 403), "rejected"),
        (ClusterError("the server could not find the requested resource", 404), "no_operator"),
        (ClusterError("spec: Invalid value", 422), "rejected"),
    ],
)
def test_a_refusal_that_nothing_mends_is_not_tried_again(error: ClusterError, kind: str) -> None:
    api = FakeApi()
    api.spoiled["POST"] = [error]
    with pytest.raises(TrainJobError) as raised:
        submitted(api, job())
    assert raised.value.kind == kind
    assert str(error) in str(raised.value)
    assert len(api.calls) == 1


def test_a_server_that_has_just_started_and_knows_no_permissions_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    denied, api = ForbiddenError('User "x" cannot create resource "pytorchjobs"', 403), FakeApi()
    api.spoiled["POST"] = [denied, denied]
    found, _ = submitted(api, job(), seconds=86_400)
    assert found["metadata"]["uid"]
    now = 0.0
    monkeypatch.setattr(submit_module.time, "monotonic", lambda: now)

    def submitted_at(*instants: float) -> None:
        """Each try is at the next of these instants."""
        coming = iter(instants)

        def check() -> None:
            nonlocal now
            now = next(coming)

        submit(api, job(), 86_400, lambda words: None, check)

    api = FakeApi()  # the server starts after an hour in which a quota was full
    api.spoiled["POST"] = [ForbiddenError("exceeded quota: q", 403), denied]
    submitted_at(3600, 3605, 3610)
    api = FakeApi()
    api.spoiled["POST"] = [denied] * 9
    with pytest.raises(TrainJobError) as raised:
        submitted_at(*range(3650, 5000, 50))
    assert raised.value.kind == "forbidden"


def test_waiting_ends_with_the_class_of_what_was_waited_for() -> None:
    api = FakeApi()
    api.spoiled["POST"] = [ForbiddenError("exceeded quota: q", 403)]
    with pytest.raises(TrainJobError, match="Ask for less") as raised:
        submitted(api, job(), seconds=0.0)
    assert raised.value.kind == "quota"


def test_nobody_wants_the_job_any_more() -> None:
    class UnwantedError(Exception):
        pass

    def check() -> None:
        raise UnwantedError

    api = FakeApi()
    with pytest.raises(UnwantedError):
        submit(api, job(), 60.0, lambda words: None, check)
    assert not api.calls
