"""Reaching Kubeflow: every way to it, and one clear sentence where it does not go; never a token, never a traceback."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import stat
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from steerlm_core.kube.api.client import ClusterError
from steerlm_core.kubeflow.package import packaged
from tests.services.kfp_api import kfp_api
from tests.services.kfp_recorded import as_of, recorded

TOKEN = "secret-token-of-ann"
SUCCEEDED = recorded("frozen-succeeded")
AT_WORK = as_of(SUCCEEDED, "23:12:00")


@pytest.fixture
def refused(steerlm, capsys):
    """Run `status` and return the one sentence that it ends with."""

    def run(*words: object) -> str:
        ended = steerlm("kubeflow", "status", *words)
        assert ended.code == 2
        assert ended.err.startswith("error: ")
        assert "Traceback" not in ended.err + ended.out
        assert ended.err.count("\n") == 1, ended.err
        assert TOKEN not in ended.err + ended.out
        return ended.err

    return run


def empty(steerlm, *words):
    """Whether Kubeflow answers: it has no experiment."""
    ended = steerlm("kubeflow", "status", *words)
    assert "no such experiment" in ended.err, ended.err
    return ended


def test_a_host_that_does_not_answer(refused):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = refused("--host", f"http://127.0.0.1:{port}")
    assert f"http://127.0.0.1:{port} does not answer (" in said
    assert "Connection refused" in said


def test_a_host_that_does_not_exist(refused):
    assert "there is no host kubeflow.invalid" in refused("--host", "http://kubeflow.invalid/pipeline")


@pytest.mark.parametrize("host", ["ftp://somewhere", "http://"])
def test_a_host_that_is_none(refused, host):
    assert "no address of a host" in refused("--host", host)


def test_a_password_in_the_host_is_not_repeated(refused):
    said = refused("--host", f"https://ann:{TOKEN}@kubeflow.example.com")
    assert "leave them out" in said


def test_no_token_and_a_wrong_one(refused, api, monkeypatch):
    api.token = "another"
    assert "does not accept no token (401): set KFP_EXISTING_TOKEN" in refused()
    monkeypatch.setenv("KFP_EXISTING_TOKEN", TOKEN)
    assert "does not accept the token of KFP_EXISTING_TOKEN (401): it is wrong or has expired" in refused()


def test_a_token_that_may_not(refused, api, monkeypatch):
    api.forbidden = TOKEN
    monkeypatch.setenv("KFP_EXISTING_TOKEN", TOKEN)
    said = refused()
    assert "403: User 'ann' is not authorized" in said
    assert "ask for access" in said


def test_a_token_with_a_line_break_in_it_is_not_repeated(refused, api, monkeypatch):
    monkeypatch.setenv("KFP_EXISTING_TOKEN", f"{TOKEN}\n{TOKEN}")
    assert "holds characters that no token has" in refused()


def test_a_login_page_is_no_answer(refused, api):
    api.login = True
    assert "answers with a web page, a login perhaps" in refused()


def test_something_else_under_the_address(refused, api):
    assert "refuses (404)" in refused("--host", f"{api.url}/elsewhere")


def test_a_kubeflow_that_is_down(refused, api):
    api.failing = 1000
    assert "answers 503: Kubeflow Pipelines is starting or down" in refused()


def test_a_good_token_is_sent(steerlm, api, monkeypatch):
    api.token = TOKEN
    monkeypatch.setenv("KFP_EXISTING_TOKEN", TOKEN + "\n")
    empty(steerlm)


def test_the_token_of_a_volume_is_read_anew(steerlm, api, at, tmp_path, monkeypatch):
    """The kubelet renews it while a run is followed."""
    at("23:12:10")
    file = tmp_path / "token"
    file.write_text("old")
    api.token = "old"
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(file))
    api.keep_recorded("frozen-succeeded", **AT_WORK)

    def renew():
        file.write_text("new")
        api.token = "new"
        return {}

    api.reports[""] = [{}, renew, SUCCEEDED]
    ended = steerlm("kubeflow", "status", *api.runs, "--wait")
    assert ended.code == 0, ended.err


def test_a_token_file_that_is_not_there(refused, api, tmp_path):
    assert "no such token file" in refused("--token-file", tmp_path / "token")


def test_many_users_need_a_namespace(steerlm, refused, api, config):
    api.multi_user = True
    assert "give yours (your profile): --namespace" in refused()
    ended = steerlm("kubeflow", "submit", config, "--root", "s3://bucket/run", "--namespace", "team")
    assert ended.code == 0, ended.err
    assert [each["namespace"] for each in api.experiments.values()] == ["team"]
    assert steerlm("kubeflow", "upload", "--namespace", "team").code == 0
    assert [each["namespace"] for each in api.pipelines.values()] == ["team"]
    assert "no such experiment" in refused("--namespace", "others")


def test_a_single_user_has_none(steerlm, api, config):
    """A Job that is given the namespace of its pod works there too."""
    words = ("kubeflow", "submit", config, "--root", "s3://bucket/run", "--namespace", "kubeflow")
    assert steerlm(*words).code == 0
    assert [each["namespace"] for each in api.experiments.values()] == [""]


def test_nothing_is_written_into_the_home_directory(steerlm, api, config, tmp_path, monkeypatch):
    from kfp import Client

    context = tmp_path / "home" / "context.json"
    monkeypatch.setattr(Client, "_LOCAL_KFP_CONTEXT", str(context))
    api.multi_user = True
    steerlm("kubeflow", "submit", config, "--root", "s3://bucket/run", "--namespace", "team")
    assert len(api.runs) == 1
    assert not context.parent.exists()


def test_in_a_cluster_it_is_the_service(refused, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert "http://ml-pipeline.kubeflow.svc.cluster.local:8888: there is no host" in refused()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """Key and certificate of 127.0.0.1, its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True).sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ) + made.public_bytes(serialization.Encoding.PEM)
    )  # fmt: skip
    return path


def test_a_certificate_must_be_trusted(steerlm, refused, certificate):
    with kfp_api(certificate) as api:
        said = refused("--host", api.url)
        assert "its certificate cannot be trusted" in said
        assert "--ca FILE" in said
        empty(steerlm, "--host", api.url, "--ca", certificate)
        empty(steerlm, "--host", api.url.removeprefix("https://"), "--ca", certificate)


def test_tls_where_there_is_none(refused, api):
    said = refused("--host", api.url.removeprefix("http://"))
    assert "does not speak TLS there; give the address with http://" in said


def test_a_ca_file_that_is_not_there(refused, api, tmp_path):
    assert "no such file of certificates" in refused("--ca", tmp_path / "ca.pem")


KUBECTL = """#!{python}
import os, pathlib, sys, time
pathlib.Path({seen!r}).write_text(" ".join(sys.argv[1:]) + "\\n" + str(os.getpid()))
{body}
"""


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    """Put a kubectl into the path; returns the file that it writes its arguments and its process id to."""
    monkeypatch.delenv("KFP_ENDPOINT", raising=False)

    def put(body: str) -> Path:
        seen, program = tmp_path / "seen", tmp_path / "bin" / "kubectl"
        program.parent.mkdir()
        program.write_text(KUBECTL.format(python=sys.executable, seen=str(seen), body=body))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return seen

    return put


def test_without_a_host_it_is_a_port_forward(steerlm, api, kubectl):
    port = api.url.rpartition(":")[2]
    seen = kubectl(f'print("Forwarding from 127.0.0.1:{port} -> 3000", flush=True)\ntime.sleep(600)')
    empty(steerlm)
    arguments, process = seen.read_text().split("\n")
    assert arguments == "port-forward --address=127.0.0.1 --namespace=kubeflow service/ml-pipeline-ui :80"
    assert not Path(f"/proc/{process}").exists()


def test_the_link_of_a_forwarded_host_says_how_to_open_it(steerlm, api, config, kubectl, monkeypatch):
    port = api.url.rpartition(":")[2]
    kubectl(f'print("Forwarding from 127.0.0.1:{port} -> 3000", flush=True)\ntime.sleep(600)')
    ended = steerlm("kubeflow", "submit", config, "--root", "s3://bucket/run")
    (run,) = api.runs
    assert f"http://localhost:8080/#/runs/details/{run} after: kubectl port-forward -n kubeflow" in ended.out
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://kubeflow.example.com/pipeline")
    api.runs[run]["state"] = "SUCCEEDED"
    ended = steerlm("kubeflow", "status", run)
    assert f"https://kubeflow.example.com/pipeline/#/runs/details/{run}" in ended.out


def test_a_chatty_port_forward_does_not_block(steerlm, api, at, config, kubectl, tmp_path):
    """kubectl says a line for every connection, and stands still once nobody reads them."""
    at("23:12:10")
    port, done = api.url.rpartition(":")[2], tmp_path / "done"
    lines = [
        f'print("Forwarding from 127.0.0.1:{port} -> 3000", flush=True)',
        'for _ in range(5000): print("Handling connection for 3000", flush=True)',
        f"pathlib.Path({str(done)!r}).touch()",
        "time.sleep(600)",
    ]
    kubectl("\n".join(lines))
    like_it = {"created_at": SUCCEEDED["created_at"], **AT_WORK}
    api.reports[""] = [like_it, lambda: {"state": "SUCCEEDED" if done.exists() else "RUNNING"}]
    ended = steerlm("kubeflow", "submit", config, "--root", "s3://bucket/run", "--wait")
    assert ended.code == 0, ended.err


def test_a_port_forward_that_fails_is_said_in_kubectls_words(refused, kubectl):
    kubectl('sys.exit("error: services \\"ml-pipeline-ui\\" not found")')
    assert 'failed: error: services "ml-pipeline-ui" not found' in refused()


def test_without_host_and_kubectl(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no host: give --host or KFP_ENDPOINT, or install kubectl" in refused()


def test_doctor_finds_it_well(steerlm, api, bucket):
    steerlm("kubeflow", "upload")
    ended = steerlm("doctor", "--kubeflow", "--root", bucket)
    assert ended.code == 0, ended.err
    for what in (api.url, "no token", "2.17.0", "a single user", packaged().version, bucket):
        assert what in ended.out
    assert "steerlm kubeflow upload" not in ended.out


def test_doctor_says_that_pods_of_another_endpoint_were_not_tried(steerlm, api, bucket, tmp_path):
    (tmp_path / "platform.yaml").write_text("object_store: {endpoint: 'http://storr:9000'}")
    ended = steerlm("doctor", "--kubeflow", "--root", bucket, "--platform", tmp_path / "platform.yaml")
    assert ended.code == 0, ended.err
    assert "pods ask http://storr:9000" in " ".join(ended.out.split())


@pytest.mark.parametrize(
    ("words", "platform", "looked_at"),
    [
        ([], "", None),
        (["--namespace", "team"], "", "team"),
        (["--namespace", "team"], "train_job: {namespace: gpu}", "gpu"),
    ],
)
def test_doctor_looks_at_the_cluster_in_the_namespace_of_the_training_jobs(
    steerlm, monkeypatch, tmp_path, words, platform, looked_at
):
    asked = []

    def nowhere(namespace: str | None) -> None:
        asked.append(namespace)
        raise ClusterError("no way into a cluster")

    monkeypatch.setattr("steerlm_core.kube.preflight.doctor.connect", nowhere)
    (tmp_path / "platform.yaml").write_text(platform)
    assert steerlm("doctor", "--kubernetes", "--platform", tmp_path / "platform.yaml", *words).code == 1
    if words:
        monkeypatch.setenv("KFP_NAMESPACE", words[1])
        steerlm("doctor", "--kubernetes", "--platform", tmp_path / "platform.yaml")
    assert set(asked) == {looked_at}


def test_doctor_looks_at_kubeflow_too_where_the_cluster_has_failed(steerlm, api, monkeypatch, tmp_path):
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    ended = steerlm("doctor", "--kubernetes", "--kubeflow")
    assert ended.code == 1
    assert "API server" in ended.out
    assert "Kubeflow Pipelines" in ended.out


def test_doctor_names_what_repairs_it(steerlm, api, tmp_path):
    said = steerlm("doctor", "--kubeflow")
    assert said.code == 0
    assert "not uploaded" in said.out
    assert "  steerlm kubeflow upload\n" in said.out
    api.token = "another"
    said = steerlm("doctor", "--kubeflow")
    assert said.code == 1
    assert "set KFP_EXISTING_TOKEN" in said.out
