"""What doctor finds on a cluster, here an API server of fixed answers over a real connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from steerlm_core.kube.preflight.check import Check, State
from steerlm_core.kube.preflight.doctor import check_store, examine
from steerlm_core.platform import ObjectStoreConfig, PlatformConfig
from tests.services.kube_api import kube_api
from tests.services.s3 import S3Server

KUEUE = "/apis/kueue.x-k8s.io"
DRY_RUN = "/apis/kubeflow.org/v1/namespaces/team/pytorchjobs?dryRun=All"
ANSWERS: dict[str, Any] = {
    "/version": {"gitVersion": "v1.34.0"},
    "/apis/authentication.k8s.io/v1/selfsubjectreviews": {"status": {"userInfo": {"username": "u"}}},
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews": {"status": {"allowed": True}},
    "/api/v1/namespaces/team": {"metadata": {}},
    "/apis/kubeflow.org/v1": {"resources": [{"name": "pytorchjobs"}]},
    "/api/v1/namespaces/team/resourcequotas": {"items": []},
    DRY_RUN: {"spec": {"runPolicy": {"suspend": True}}},
}


class Handler(BaseHTTPRequestHandler):
    """Answers what `there` has, else 404."""

    there: dict[str, Any]

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = self.there.get(self.path)
        self.send_response(404 if found is None else 200)
        self.end_headers()
        self.wfile.write(json.dumps(found or {"message": "not found"}).encode())

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, form: str, *words: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the server has, by path."""
    monkeypatch.setattr(Handler, "there", dict(ANSWERS), raising=False)
    with kube_api(Handler, "team", tmp_path, monkeypatch):
        yield Handler.there


def kueue() -> Check:
    platform = PlatformConfig.model_validate({"train_job": {"queue": "gpus"}})
    (found,) = (check for check in examine(platform, None) if check.what == "Kueue")
    return found


def serve_kueue(server: dict[str, Any], version: str) -> None:
    server[KUEUE] = {"preferredVersion": {"groupVersion": f"kueue.x-k8s.io/{version}"}}
    server[f"{KUEUE}/{version}/namespaces/team/localqueues/gpus"] = {"kind": "LocalQueue"}


@pytest.mark.parametrize("version", ["v1beta1", "v1beta2"])
def test_a_queue_that_is_there(server: dict[str, Any], version: str) -> None:
    serve_kueue(server, version)
    assert (kueue().state, kueue().found) == (
        State.OK,
        "LocalQueue gpus is there, and Kueue holds the job until its turn",
    )


def test_a_kueue_that_leaves_the_job_alone(server: dict[str, Any]) -> None:
    serve_kueue(server, "v1beta2")
    server[DRY_RUN] = {"spec": {"runPolicy": {}}}
    assert kueue().state is State.WARNING
    assert "starts at once" in kueue().found
    assert "kubeflow.org/pytorchjob" in kueue().repair


def test_without_a_dry_run_it_is_unknown_whether_kueue_holds_the_job(server: dict[str, Any]) -> None:
    serve_kueue(server, "v1beta2")
    del server[DRY_RUN]
    assert kueue().state is State.UNKNOWN


def test_a_missing_queue_is_told_from_a_missing_kueue(server: dict[str, Any]) -> None:
    none = kueue()
    assert none.state is State.WARNING
    assert "the cluster has no Kueue" in none.found
    server[KUEUE] = {"preferredVersion": {"groupVersion": "kueue.x-k8s.io/v1beta2"}}
    missing = kueue()
    assert missing.state is State.FAILED
    assert "there is no LocalQueue gpus" in missing.found


def test_a_store_that_pods_look_for_where_it_was_tried(s3: S3Server, bucket: str) -> None:
    found = check_store(bucket, ObjectStoreConfig(endpoint=f"{s3.endpoint}/"))
    assert (found.state, found.found) == (
        State.OK,
        f"{bucket} can be written to from here, at {s3.endpoint}, and honours conditional puts",
    )


@pytest.mark.parametrize(("endpoint", "named"), [("http://storr:9000", "http://storr:9000"), (None, "AWS")])
def test_a_store_that_pods_look_for_elsewhere_is_unknown(
    s3: S3Server, bucket: str, endpoint: str | None, named: str
) -> None:
    found = check_store(bucket, ObjectStoreConfig(endpoint=endpoint))
    assert found.state is State.UNKNOWN
    assert f"at {s3.endpoint}" in found.found
    assert f"pods ask {named} (object_store.endpoint), which was not tried" in found.found


@pytest.mark.parametrize(
    ("bundle", "config_map", "words"),
    [
        (None, "store-ca", "against configmap store-ca, and this process against what it trusts"),
        ("/ca.crt", "store-ca", "against configmap store-ca, and this process against /ca.crt"),
        ("/ca.crt", None, "against what their image trusts, and this process against /ca.crt"),
        (None, None, ""),
    ],
)
def test_a_certificate_that_pods_check_otherwise_is_unknown(
    monkeypatch: pytest.MonkeyPatch, bundle: str | None, config_map: str | None, words: str
) -> None:
    monkeypatch.setattr("steerlm_core.store.probe.probe", lambda store: None)
    monkeypatch.setattr("steerlm_core.store.s3.endpoint", lambda: "https://s3.example")
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    if bundle:
        monkeypatch.setenv("AWS_CA_BUNDLE", bundle)
    found = check_store("s3://bucket/run", ObjectStoreConfig(endpoint="https://s3.example", ca_config_map=config_map))
    assert found.state is (State.UNKNOWN if words else State.OK)
    assert words in found.found


def test_settings_that_no_client_takes_are_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEERLM_S3_ADDRESSING", "vitrual")
    found = check_store("s3://bucket/run", ObjectStoreConfig())
    assert (found.state, "vitrual" in found.found) == (State.FAILED, True)


@pytest.mark.parametrize("host", ["s3.amazonaws.com", "s3.eu-west-1.amazonaws.com"])
def test_aws_is_aws(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    monkeypatch.setattr("steerlm_core.store.probe.probe", lambda store: None)
    monkeypatch.setattr("steerlm_core.store.s3.endpoint", lambda: f"https://{host}")
    assert check_store("s3://bucket/run", ObjectStoreConfig()).state is State.OK
