"""Quotas: what pods need, under every name that a quota counts by."""

import pytest

from steerlm_core.kube.check import State
from steerlm_core.kube.quota import needs, room

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
NEED = needs([POD, POD])


def check(hard, used):
    quota = {"metadata": {"name": "team"}, "status": {"hard": hard, "used": used}}
    return room([quota], NEED, "space")


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
    ],
)
def test_what_is_needed_is_compared_with_what_is_left(hard, used, state):
    assert check(hard, used).state is state


def test_the_message_names_quota_resource_and_figures():
    found = check({"pods": "3"}, {"pods": "2"})
    assert found.found == "team: pods 2 does not fit at present (left 1 of 3)"
    assert found.repair.startswith("kubectl -n space edit resourcequota team")


def test_no_quota_is_room():
    assert room([], NEED, "space").found == "no quota"
