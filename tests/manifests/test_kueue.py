"""Kueue's objects, against the fields in its documentation (v1beta2); its CRDs are not to be had for the tests."""

import pytest

from steerlm_core.kube.job.spec import JobTarget, build_job
from steerlm_core.platform import PlatformConfig
from tests.manifests.sources import MANIFESTS, documents, one

# https://kueue.sigs.k8s.io/docs/reference/kueue.v1beta2/, what manifests/ may use: kind, fields, values.
_ANY = None
_SELECTOR = {"matchLabels": _ANY, "matchExpressions": _ANY}
FIELDS = {
    "ResourceFlavor": {"spec": {"nodeLabels": _ANY, "nodeTaints": _ANY, "tolerations": _ANY}},
    "ClusterQueue": {
        "spec": {
            "namespaceSelector": _SELECTOR,
            "queueingStrategy": {"StrictFIFO", "BestEffortFIFO"},
            "stopPolicy": {"None", "Hold", "HoldAndDrain"},
            "preemption": {"withinClusterQueue": {"Never", "LowerPriority", "LowerOrNewerEqualPriority"}},
            "resourceGroups": {
                "coveredResources": _ANY,
                "flavors": {
                    "name": _ANY,
                    "resources": {"name": _ANY, "nominalQuota": _ANY},
                },
            },
        }
    },
    "LocalQueue": {"spec": {"clusterQueue": _ANY, "stopPolicy": {"None", "Hold", "HoldAndDrain"}}},
    "WorkloadPriorityClass": {"value": _ANY, "description": _ANY},
}
OBJECTS = [d for path in sorted((MANIFESTS / "components/kueue").glob("[!k]*.yaml")) for d in documents(path)]


def check(value, known, where):
    if known is _ANY:
        return
    if isinstance(known, set):
        assert value in known, f"{where}: {value}"
    elif isinstance(value, list):
        for item in value:
            check(item, known, where)
    else:
        assert set(value) <= set(known), f"{where}: unknown {set(value) - set(known)}"
        for key, inner in value.items():
            check(inner, known[key], f"{where}.{key}")


@pytest.mark.parametrize("document", OBJECTS, ids=lambda d: f"{d['kind']}-{d['metadata']['name']}")
def test_fields_are_documented(document):
    assert document["apiVersion"] == "kueue.x-k8s.io/v1beta2"
    body = {key: value for key, value in document.items() if key not in ("apiVersion", "kind", "metadata")}
    check(body, FIELDS[document["kind"]], document["kind"])


def test_all_kinds_are_there_and_refer_to_each_other():
    assert {document["kind"] for document in OBJECTS} == set(FIELDS)
    cluster_queue = one("ClusterQueue", one("LocalQueue", "steerlm")["spec"]["clusterQueue"])
    for group in cluster_queue["spec"]["resourceGroups"]:
        for flavor in group["flavors"]:
            one("ResourceFlavor", flavor["name"])
            assert [resource["name"] for resource in flavor["resources"]] == group["coveredResources"]


def test_the_queue_covers_whatever_our_pods_request_and_admits_a_default_job():
    platform = PlatformConfig.model_validate({
        "train_job": {"queue": "steerlm", "accelerator": {"name": "nvidia.com/gpu", "count": 8}}
    })  # fmt: skip
    job = build_job(JobTarget("s3://bucket/run", "demo", 0, "train", "0.1.0"), platform, "image:1", "ns", 0, [])
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == one("LocalQueue", "steerlm")["metadata"]["name"]
    (group,) = one("ClusterQueue", "steerlm")["spec"]["resourceGroups"]
    pod = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    assert set(pod["containers"][0]["resources"]["requests"]) <= set(group["coveredResources"])
