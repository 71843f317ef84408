"""`steerlm` in this process against a double of the API, by way of the real kfp.Client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from steerlm_core.kubeflow import follow, package
from steerlm_core.kubeflow.platform import write_pipeline
from tests.services.kfp_api import KfpApi, kfp_api

FOUND_BY_THEMSELVES = (
    "KFP_ENDPOINT KF_PIPELINES_ENDPOINT KF_PIPELINES_UI_ENDPOINT KFP_NAMESPACE KFP_EXISTING_TOKEN SSL_CERT_FILE "
    "KF_PIPELINES_SA_TOKEN_PATH STEERLM_PLATFORM STEERLM_IMAGE KUBERNETES_SERVICE_HOST KUBECONFIG"
).split()


@pytest.fixture(autouse=True)
def _nothing_is_found_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FOUND_BY_THEMSELVES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.01)


@pytest.fixture
def api(monkeypatch) -> Iterator[KfpApi]:
    """A Kubeflow that KFP_ENDPOINT leads to."""
    with kfp_api() as api:
        monkeypatch.setenv("KFP_ENDPOINT", api.url)
        yield api


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
