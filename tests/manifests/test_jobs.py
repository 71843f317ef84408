"""The Jobs of an overlay, run as pods of the built image: they register the pipeline and make its schedule, once."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
import yaml

from steerlm_core.platform import load_platform
from tests.cluster.kit import GATEWAY, IMAGE, ROOT, kubectl, load_image
from tests.manifests.applying import applied, apply, namespace, render, with_components
from tests.manifests.sources import MANIFESTS, RELEASE, documents
from tests.services.kfp_api import kfp_api
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture
def kubeflow(cluster):
    """The double of Kubeflow Pipelines, where its service is in a cluster: ml-pipeline.kubeflow:8888."""
    load_image()
    with kfp_api(address=GATEWAY) as api:
        port = int(api.url.rsplit(":", 1)[1])
        name = {"name": "ml-pipeline", "namespace": "kubeflow"}
        manifests = [
            {"apiVersion": "v1", "kind": "Service", "metadata": name, "spec": {"ports": [{"port": 8888}]}},
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {**name, "labels": {"kubernetes.io/service-name": "ml-pipeline"}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [GATEWAY]}],
                "ports": [{"port": port}],
            },
        ]
        for manifest in manifests:
            kubectl("apply", "-f", "-", manifest=manifest)
        yield api
        kubectl("-n", "kubeflow", "delete", "service,endpointslice", "ml-pipeline")


@pytest.fixture(params=["test-cluster", "multi-user"])
def overlay(request):
    """An overlay with a schedule, with the image under test; its namespace and step account."""
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        path = Path(folder, "overlay")
        path.mkdir()
        base = (
            with_components(request.param, path)
            if request.param == "multi-user"
            else MANIFESTS / "overlays/test-cluster"
        )
        under_test = Path(folder, "under-test")
        under_test.mkdir()
        name, tag = IMAGE.rsplit(":", 1)
        images = [
            {"name": c, "newName": name, "newTag": tag} for c in ("registry.example.com/steerlm", "localhost/steerlm")
        ]
        resources = [os.path.relpath(base, under_test)]
        (under_test / "kustomization.yaml").write_text(yaml.safe_dump({"resources": resources, "images": images}))
        account = load_platform(base / "platform.yaml").steps.service_account
        yield under_test, account


def test_jobs_register_the_pipeline_and_make_the_schedule_once(kubeflow, overlay):
    folder, account = overlay
    kubeflow.multi_user = "editor" in account
    jobs = {d["metadata"]["labels"]["app.kubernetes.io/name"]: d for d in render(folder) if d["kind"] == "Job"}
    where = jobs["steerlm-register"]["metadata"]["namespace"]
    with namespace(where, **RESTRICTED), applied(folder):
        kubectl("-n", where, "create", "serviceaccount", account)
        for times in (1, 2):  # Jobs that run again register and schedule nothing twice
            completed(where, jobs)
            registered(kubeflow, jobs, times)
            kubectl("-n", where, "delete", "job", "--all", "--wait")
            apply(folder)


def completed(where, jobs):
    """Wait until each Job has done its work; the schedule's tries until there is a pipeline."""
    for job in jobs.values():
        name = job["metadata"]["name"]

        def conditions(name=name):
            found = json.loads(kubectl("-n", where, "get", "job", name, "-o", "json"))
            return {c["type"] for c in found["status"].get("conditions", []) if c["status"] == "True"}

        ended = until(f"{name} has ended", lambda: conditions() & {"Complete", "Failed"}, 240, pause=1)
        assert ended == {"Complete"}, kubectl("-n", where, "logs", f"job/{name}")


def registered(kubeflow, jobs, times):
    """One pipeline with one version, whose steps run in the release's image, and one recurring run of it."""
    (pipeline,) = kubeflow.pipelines.values()
    assert pipeline["display_name"] == "steerlm-v2"
    (version,) = kubeflow.versions.values()
    assert version["display_name"].startswith(documents(RELEASE)[0]["data"]["version"])
    (container,) = jobs["steerlm-register"]["spec"]["template"]["spec"]["containers"]
    (image,) = (e["value"] for e in container["env"] if e["name"] == "STEERLM_IMAGE")
    specification = version["pipeline_spec"]["pipeline_spec"]
    executors = specification["deploymentSpec"]["executors"].values()
    assert {executor["container"]["image"] for executor in executors} == {image}
    (recurring,) = kubeflow.recurring.values()
    assert recurring["max_concurrency"] == "1"
    assert recurring["no_catchup"]
    assert not recurring["pipeline_version_reference"].get("pipeline_version_id"), "none: it follows the latest"
    uploads = [call for call in kubeflow.calls if call.startswith("POST") and "upload" in call]
    assert len(uploads) == 1, f"after {times} times"
