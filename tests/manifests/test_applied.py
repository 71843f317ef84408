"""Every overlay on a real API server: accepted without a warning, the same when applied twice, gone when deleted."""

import json
import tempfile
from pathlib import Path

import pytest

from tests.cluster.kit import ROOT, kubectl
from tests.manifests.applying import applied, apply, namespace, ours, render, with_components
from tests.manifests.sources import MANIFESTS, OVERLAYS, one
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300), pytest.mark.usefixtures("cluster")]
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
FOLDERS = {name: MANIFESTS / "overlays" / name for name in OVERLAYS}


@pytest.fixture(params=[*OVERLAYS, "standalone with components", "multi-user with components"])
def overlay(request):
    """An overlay's folder, and the namespace that it works in, which is there before it unless it makes it."""
    name, _, more = request.param.partition(" ")
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        path = with_components(name, Path(folder)) if more else FOLDERS[name]
        made = {d["metadata"]["name"] for d in render(path) if d["kind"] == "Namespace"}
        (where,) = {d["metadata"]["namespace"] for d in render(path) if "namespace" in d["metadata"]}
        if made:
            yield path, where
        else:
            with namespace(where, **RESTRICTED):
                yield path, where


def test_is_accepted_applied_twice_without_change_and_removed_without_rest(overlay):
    folder, where = overlay
    assert ours(where) == set()
    with applied(folder) as rendered:
        wanted = {f"{d['kind']}/{d['metadata']['name']}" for d in rendered}
        assert ours(where) == wanted, "everything of ours says so by its label, and nothing else appears"
        again = apply(folder)
        assert len(again) == len(rendered)
        assert [line for line in again if not line.endswith(" unchanged")] == []
    until("what was applied is gone", lambda: ours(where) == set(), 60)


def test_the_roles_subject_is_the_step_account_of_the_namespace():
    for name in ("standalone", "test-cluster"):
        rendered = render(FOLDERS[name])
        (binding,) = (d for d in rendered if d["kind"] == "RoleBinding")
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": "pipeline-runner", "namespace": binding["metadata"]["namespace"]}
        ]
    assert not [d for d in render(FOLDERS["multi-user"]) if d["kind"] in ("Role", "RoleBinding")]


def test_versions_and_image_reach_every_job():
    (release,) = (d for d in [one("ConfigMap", "steerlm-release")])
    for name, image in (("standalone", release["data"]["image"]), ("test-cluster", "localhost/steerlm:test")):
        jobs = [d for d in render(FOLDERS[name]) if d["kind"] == "Job"]
        assert jobs
        for job in jobs:
            assert job["metadata"]["name"].endswith(f"-{release['data']['suffix']}")
            assert job["metadata"]["labels"]["app.kubernetes.io/version"] == release["data"]["version"]
            (container,) = job["spec"]["template"]["spec"]["containers"]
            assert container["image"] == image
            assert {"name": "STEERLM_IMAGE", "value": image} in container["env"]


def test_kueue_renders_into_an_overlay(tmp_path_factory):
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        path = with_components("standalone", Path(folder))
        text = (path / "kustomization.yaml").read_text()
        (path / "kustomization.yaml").write_text(text.replace("components/quota", "components/kueue"))
        queues = {d["kind"]: d["metadata"].get("namespace") for d in render(path) if "kueue" in d["apiVersion"]}
    assert queues["LocalQueue"] == "kubeflow"


def test_the_example_secret_is_accepted():
    example = str(MANIFESTS / "base" / "object-store.example.yaml")
    with namespace("k3-secret") as where:
        kubectl("-n", where, "apply", "-f", example)
        found = json.loads(kubectl("-n", where, "get", "secret", "steerlm-object-store", "-o", "json"))
        assert set(found["data"]) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def test_the_quota_refuses_one_accelerator_too_many_and_no_job():
    with applied(FOLDERS["test-cluster"]):
        words = ("-n", "steerlm-test", "get", "quota", "steerlm", "-o", "json")
        until("the quota counts", lambda: "used" in json.loads(kubectl(*words)).get("status", {}), 20)
        for number in range(5):
            kubectl("apply", "-f", "-", manifest=suspended(f"waits-{number}"))
        with pytest.raises(AssertionError, match="exceeded quota: steerlm"):
            kubectl("apply", "-f", "-", manifest=pod_with_accelerators(17))


def pod_with_accelerators(count):
    """A pod that Pod Security admits."""
    container = {
        "name": "main",
        "image": "localhost/pause:1",
        "resources": {"limits": {"nvidia.com/gpu": str(count)}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "greedy", "namespace": "steerlm-test"},
        "spec": {"serviceAccountName": "steerlm-train", "securityContext": security, "containers": [container]},
    }


def suspended(name):
    """A PyTorchJob that never starts."""
    pod = {"spec": {"containers": [{"name": "pytorch", "image": "localhost/pause:1"}]}}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name, "namespace": "steerlm-test"},
        "spec": {
            "runPolicy": {"suspend": True},
            "pytorchReplicaSpecs": {"Master": {"replicas": 1, "template": pod}},
        },
    }
