"""What a refused dry run of a pod says of the cluster."""

from __future__ import annotations

import pytest

from steerlm_core.kube.api.client import ClusterError, ForbiddenError
from steerlm_core.kube.preflight.check import Check, State
from steerlm_core.kube.preflight.controllers import Operator
from steerlm_core.kube.preflight.dry_run import dry_run_pod, sample_job, sample_pods
from steerlm_core.platform import PlatformConfig
from tests.kube.fake_api import FakeApi

NOT_SEEN = Operator()
POD = {"metadata": {"name": "doctor-master-0"}, "spec": {"serviceAccountName": "steerlm-train"}}
QUOTA = (
    'pods "doctor-master-0" is forbidden: exceeded quota: team, requested: pods=1,requests.memory={}, '
    "used: pods=3,requests.memory=1Gi, limited: pods=9,requests.memory=1536Mi"
)


def tried(error: ClusterError | None, kind: str = "Master", operator: Operator = NOT_SEEN) -> Check:
    api = FakeApi()
    api.spoiled["POST"] = [error]
    return dry_run_pod(api, kind, POD, operator)


@pytest.mark.parametrize(("memory", "state"), [("1Gi", State.WARNING), ("2Gi", State.FAILED)])
def test_a_quota_that_is_used_up_is_told_from_one_that_is_too_small(memory: str, state: State) -> None:
    found = tried(ForbiddenError(QUOTA.format(memory), 403))
    assert found.state is state
    assert found.repair.startswith("kubectl -n ns get resourcequota")


@pytest.mark.parametrize("status", [0, 429, 500, 504])
def test_a_server_that_cannot_answer_leaves_it_open(status: int) -> None:
    found = tried(ClusterError("POST /api/v1/namespaces/ns/pods: Internal error occurred", status))
    assert (found.state, found.repair) == (State.UNKNOWN, "")
    assert found.found.startswith("could not be tried: POST")


def test_a_pod_that_is_none_is_the_platform_files_mistake() -> None:
    found = tried(ClusterError("spec.containers: Required value", 422))
    assert (found.state, found.repair) == (State.FAILED, "Correct train_job of the platform file.")


def test_a_worker_is_admitted_for_sure_where_the_operators_init_container_was_tried_with_it() -> None:
    known = Operator(init_template="[{name: wait, image: '{{.InitContainerImage}}', args: ['{{.MasterAddr}}']}]")
    assert tried(None, "Worker", known).state is State.OK
    for unknown in (NOT_SEEN, Operator(init_template="[{name: wait, image: '{{.OfALaterOperator}}'}]")):
        found = tried(None, "Worker", unknown)
        assert (found.state, "cannot be seen" in found.found) == (State.UNKNOWN, True)
        assert tried(None, "Master", unknown).state is State.OK
        assert tried(ForbiddenError("violates PodSecurity", 403), "Worker", unknown).state is State.FAILED


def test_a_workers_own_init_containers_come_before_that_of_the_operator() -> None:
    operator = Operator(init_template="[{name: wait, args: ['{{.MasterAddr}}']}]", init_image="i")
    platform = {"train_job": {"nodes": 2, "patch": {"pod": {"spec": {"initContainers": [{"name": "mine"}]}}}}}
    pods = dict(sample_pods(sample_job(PlatformConfig.model_validate(platform), "image", "ns"), operator))
    added = {"name": "wait", "args": [f"{pods['Master']['metadata']['name']}"]}
    assert pods["Worker"]["spec"]["initContainers"] == [{"name": "mine"}, added]
    assert pods["Master"]["spec"]["initContainers"] == [{"name": "mine"}]
