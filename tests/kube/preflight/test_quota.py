"""Quotas: what a job needs, under every name that a quota counts by, of those that count its pods."""

import pytest

from steerlm_core.kube.preflight.check import State
from steerlm_core.kube.preflight.quota import check_quotas, quota_usage

POD = {
    "spec": {
        "containers": [
            {
                "resources": {
                    "requests": {"cpu": "1500m", "memory": "1Gi", "nvidia.com/gpu": "8"},
                    "limits": {"memory": "1Gi", "nvidia.com/gpu": "8"},
                }
            }
        ]
    }
}
NEED = quota_usage([POD, POD])


def check(hard, used, **spec):
    quota = {"metadata": {"name": "team"}, "spec": spec, "status": {"hard": hard, "used": used}}
    return check_quotas([quota], [POD, POD], "space")


def of_class(operator, *values):
    return {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": list(values)}]}


def test_needs_of_all_pods_are_summed():
    assert (NEED["pods"], NEED["requests.cpu"], NEED["cpu"], NEED["limits.memory"]) == (2, 3, 3, 2 << 30)
    assert NEED["requests.nvidia.com/gpu"] == 16


@pytest.mark.parametrize(
    ("hard", "used", "state"),
    [
        ({"requests.nvidia.com/gpu": "16"}, {"requests.nvidia.com/gpu": "0"}, State.OK),
        ({"requests.nvidia.com/gpu": "16"}, {"requests.nvidia.com/gpu": "1"}, State.WARNING),
        ({"requests.nvidia.com/gpu": "15"}, {}, State.FAILED),
        ({"cpu": "2999m"}, {}, State.FAILED),
        ({"requests.memory": "2Gi"}, {"requests.memory": "1Ki"}, State.WARNING),
        ({"pods": "10"}, {"pods": "9"}, State.WARNING),
        ({"configmaps": "0"}, {}, State.OK),
        ({"count/pytorchjobs.kubeflow.org": "1"}, {}, State.OK),
        ({"count/pytorchjobs.kubeflow.org": "1"}, {"count/pytorchjobs.kubeflow.org": "1"}, State.WARNING),
        ({"count/pytorchjobs.kubeflow.org": "0"}, {}, State.FAILED),
        ({"services": "2", "count/services": "2"}, {}, State.OK),
        ({"services": "1"}, {}, State.FAILED),
        ({"count/services": "3"}, {"count/services": "2"}, State.WARNING),
    ],
)
def test_what_is_needed_is_compared_with_what_is_left(hard, used, state):
    assert check(hard, used).state is state


def test_the_message_names_quota_resource_and_figures():
    found = check({"pods": "3"}, {"pods": "2"})
    assert found.found == "team: pods 2 does not fit at present (left 1 of 3)"
    assert found.repair.startswith("kubectl -n space edit resourcequota team")


def test_no_quota_is_room():
    assert check_quotas([], [POD], "space").found == "no quota counts these pods"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"scopes": ["NotTerminating"]}, "NotTerminating"),
        ({"scopes": ["BestEffort", "OfALaterKubernetes"]}, "BestEffort and OfALaterKubernetes"),
        ({"scopeSelector": of_class("In", "high", "low")}, "PriorityClass In high low"),
        ({"scopes": ["NotBestEffort"], "scopeSelector": of_class("Exists")}, "NotBestEffort and PriorityClass Exists"),
    ],
)
def test_which_pods_a_scope_holds_is_left_to_the_api_server(spec, words):
    found = check({"pods": "1"}, {}, **spec)
    assert (found.state, found.found) == (State.UNKNOWN, f"team: counts the pods of {words}, which these may be or not")


def test_a_quota_that_cannot_be_judged_hides_no_other():
    tight = {"metadata": {"name": "tight"}, "status": {"hard": {"pods": "2"}, "used": {"pods": "1"}}}
    scoped = {"metadata": {"name": "scoped"}, "spec": {"scopes": ["PriorityClass"]}, "status": {"hard": {"pods": "0"}}}
    both = check_quotas([scoped, tight], [POD, POD], "space")
    assert both.state is State.WARNING
    assert both.found == (
        "tight: pods 2 does not fit at present (left 1 of 2); "
        "scoped: counts the pods of PriorityClass, which these may be or not"
    )
    assert check_quotas([scoped], [POD], "space").repair == "kubectl -n space describe resourcequota scoped"
