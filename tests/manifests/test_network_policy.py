"""Training pods reach each other, DNS and the object store, Prometheus reaches their metrics; nothing else passes."""

import pytest

from steerlm_core.kube.job.pod_template import METRICS_PORT
from steerlm_core.kube.job.spec import JobTarget, build_job
from steerlm_core.platform import PlatformConfig
from tests.manifests.network_policies import End, passes
from tests.manifests.sources import one

NAMESPACE = "kubeflow"
JOB = build_job(
    JobTarget("s3://bucket/run", "demo", 0, "train", "0.1.0"), PlatformConfig(), "image:1", NAMESPACE, 0, []
)
NCCL, TORCHRUN = 41_234, 23_456


def training(replica: str) -> End:
    """A pod of the job that the launcher makes, in the overlay's namespace."""
    template = JOB["spec"]["pytorchReplicaSpecs"][replica]["template"]
    ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
    return End(NAMESPACE, template["metadata"]["labels"], ports=ports)


MASTER, WORKER = training("Master"), training("Worker")
DNS = End("kube-system", {"k8s-app": "kube-dns"})
STORE = End("kubeflow", {"app": "seaweedfs"})
STEP = End(NAMESPACE, {"pipelines.kubeflow.org/v2_component": "true"})
PROMETHEUS = End("monitoring", {"app.kubernetes.io/name": "prometheus"})
API_SERVER = End(address="10.96.0.1")
INTERNET = End(address="1.1.1.1")
FOREIGN = End("other-team", MASTER.labels)


@pytest.fixture
def policies() -> list[dict]:
    policy = one("NetworkPolicy", "steerlm-train")
    return [{**policy, "metadata": {**policy["metadata"], "namespace": NAMESPACE}}]


@pytest.mark.parametrize(
    ("source", "target", "port", "protocol"),
    [
        (WORKER, MASTER, TORCHRUN, "TCP"),
        (MASTER, WORKER, NCCL, "TCP"),
        (WORKER, WORKER, NCCL, "TCP"),
        (MASTER, DNS, 53, "UDP"),
        (WORKER, DNS, 53, "TCP"),
        (MASTER, STORE, 8333, "TCP"),
        (WORKER, STORE, 8333, "TCP"),
        (PROMETHEUS, MASTER, METRICS_PORT, "TCP"),
        (STEP, API_SERVER, 443, "TCP"),
        (STEP, INTERNET, 443, "TCP"),
    ],
)
def test_passes(policies, source, target, port, protocol):
    assert passes(policies, source, target, port, protocol)


@pytest.mark.parametrize(
    ("source", "target", "port", "protocol"),
    [
        (MASTER, API_SERVER, 443, "TCP"),
        (MASTER, INTERNET, 443, "TCP"),
        (WORKER, End(address="169.254.169.254"), 80, "TCP"),
        (MASTER, STORE, 9333, "TCP"),
        (MASTER, STEP, 8080, "TCP"),
        (MASTER, FOREIGN, NCCL, "TCP"),
        (MASTER, DNS, 9153, "TCP"),
        (MASTER, End("kube-system", {"k8s-app": "metrics-server"}), 53, "UDP"),
        (FOREIGN, MASTER, TORCHRUN, "TCP"),
        (STEP, MASTER, TORCHRUN, "TCP"),
        (STEP, MASTER, METRICS_PORT, "TCP"),
        (PROMETHEUS, MASTER, TORCHRUN, "TCP"),
    ],
)
def test_does_not_pass(policies, source, target, port, protocol):
    assert not passes(policies, source, target, port, protocol)
    assert passes([], source, target, port, protocol), "without policies everything passes"
