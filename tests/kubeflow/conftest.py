"""`steerlm` in this process against a double of the API, by way of the real kfp.Client; no cluster, and no store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from steerlm_core.kube.api import paths
from steerlm_core.kubeflow import package, runs, waiting
from steerlm_core.kubeflow.platform import write_pipeline
from tests.services.kfp_api import KfpApi, kfp_api
from tests.services.kube_api import Cluster, kube_api

FOUND_BY_THEMSELVES = (
    "KFP_ENDPOINT KF_PIPELINES_ENDPOINT KF_PIPELINES_UI_ENDPOINT KFP_NAMESPACE KFP_EXISTING_TOKEN SSL_CERT_FILE "
    "KF_PIPELINES_SA_TOKEN_PATH STEERLM_PLATFORM STEERLM_IMAGE KUBERNETES_SERVICE_HOST KUBECONFIG "
    "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_PROFILE AWS_ENDPOINT_URL_S3"
).split()


@pytest.fixture(autouse=True)
def _nothing_is_found_by_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in FOUND_BY_THEMSELVES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "no-kubeconfig"))
    monkeypatch.setattr(runs, "POLL_SECONDS", 0.01)


@pytest.fixture
def api(monkeypatch) -> Iterator[KfpApi]:
    """A Kubeflow that KFP_ENDPOINT leads to."""
    with kfp_api() as api:
        monkeypatch.setenv("KFP_ENDPOINT", api.url)
        yield api


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Iterator[Cluster]:
    """A cluster that the kubeconfig leads to, with nothing in Kubeflow's namespace yet."""
    kinds = (paths.workflows, paths.pods, paths.events, paths.jobs)
    cluster = Cluster({kind("kubeflow"): [] for kind in kinds})
    with kube_api(cluster.handler, "mine", tmp_path, monkeypatch):
        yield cluster


@pytest.fixture
def at(monkeypatch) -> Callable[[str], None]:
    """Sets the clock on the day of the recordings."""

    def at(clock: str) -> None:
        monkeypatch.setattr(waiting, "now", lambda: datetime.fromisoformat(f"2026-11-27T{clock}Z"))

    return at


@pytest.fixture
def config(tmp_path) -> Path:
    """A configuration that needs no model to be checked, with a null in it."""
    path = tmp_path / "tiny.yaml"
    settings = {
        "name": "tiny", "max_iterations": 2, "attributes": [{"name": "verbosity"}],
        "raters": {"verbosity": "word_count"}, "models": {"prior": "embedded:stories", "policy": None},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="session")
def compiled(tmp_path_factory) -> Path:
    """The pipeline with room for two iterations: the packaged one takes long to read, again and again."""
    path = tmp_path_factory.mktemp("pipeline") / "pipeline.yaml"
    write_pipeline(path, None, 2)
    return path


@pytest.fixture(autouse=True)
def _pipeline(monkeypatch, compiled) -> None:
    monkeypatch.setattr(package, "pipeline_path", lambda: compiled)
