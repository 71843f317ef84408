"""A connection to Kubeflow Pipelines: where it is, who asks, and what its refusals mean.

host      given, KFP_ENDPOINT or KF_PIPELINES_ENDPOINT; in a pod the service's own address; else a port-forward
token     KFP_EXISTING_TOKEN, or the file of a service account token volume, read anew for every call
client    kfp.Client, asked through `connect`, which turns every refusal into one sentence
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kfp
from kfp.client import KF_PIPELINES_SA_TOKEN_PATH, ServiceAccountTokenVolumeCredentials

from steerlm_core.errors import KubeflowError
from steerlm_core.kubeflow.port_forward import forwarded
from steerlm_core.kubeflow.refusals import said_plainly, web_page

INSTALLED_IN = "kubeflow"  # the namespace that Kubeflow Pipelines itself lives in
_IN_CLUSTER = f"http://ml-pipeline.{INSTALLED_IN}.svc.cluster.local:8888"
_UI_SERVICE = "ml-pipeline-ui"
_TIMEOUTS = (5.0, 60.0)  # seconds to connect and between bytes; kfp itself would wait for ever
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class Address:
    """What leads to a Kubeflow Pipelines, as a user gives it.

    Attributes:
        host: URL of the API; none: found as the module says.
        namespace: The user's namespace on a multi-user Kubeflow.
        token_file: File of a token; none: that of the token volume, where there is one.
        ca: Certificates that the host's is checked against; none: those that Python ships.
    """

    host: str | None = None
    namespace: str | None = None
    token_file: Path | None = None
    ca: Path | None = None


@dataclass
class Kubeflow:
    """A Kubeflow Pipelines that answers.

    Attributes:
        client: To ask it.
        host: Where it was reached.
        ui: Where a browser finds it; None behind an address that only this process or this cluster knows.
        namespace: Whose runs; None where it has a single user.
        version: Its release, as it says itself.
        multi_user: Whether namespaces keep users apart.
        authenticated: Where the token comes from, for messages.
        own_cluster: Whether it is sure to be in the cluster of this pod, or of the kubeconfig.
    """

    client: kfp.Client
    host: str
    ui: str | None
    namespace: str | None
    version: str
    multi_user: bool
    authenticated: str
    own_cluster: bool

    def link(self, what: str) -> str:
        """Return the address of a page for a browser, such as `runs/details/ID`."""
        if self.ui:
            return f"{self.ui}/#/{what}"
        return (
            f"http://localhost:8080/#/{what} after: kubectl port-forward -n {INSTALLED_IN} svc/{_UI_SERVICE} 8080:80 "
            "(KF_PIPELINES_UI_ENDPOINT names a better address)"
        )

    def get(self, path: str, **query: str) -> Any:
        """Return what a path of the host answers: parsed JSON, or text."""
        return get(self.client, path, **query)


@contextmanager
def connect(address: Address) -> Iterator[Kubeflow]:
    """Connect, and say in one sentence whatever goes wrong inside the block.

    Raises:
        KubeflowError: There is no host, it does not answer, or it refuses.
    """
    authenticated = _how_authenticated(address)
    with _host(address) as (host, ui), said_plainly(host, authenticated):
        client = make_client(address, host)
        health = get(client, "/apis/v2beta1/healthz")
        multi_user = bool(health.get("multi_user"))
        namespace = _namespace(address, multi_user)
        client.set_user_namespace(namespace or "")
        version = str(health.get("tag_name") or "unknown")
        yield Kubeflow(client, host, ui, namespace, version, multi_user, authenticated, _given(address) is None)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep kfp.Client from printing its own links: ours go to one place only."""
    with redirect_stdout(io.StringIO()):
        yield


class _Client(kfp.Client):  # type: ignore[misc]
    """kfp's client, which neither retries for half a minute when it is made nor writes into the home directory."""

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        return self._healthz_api.healthz_service_get_healthz(_request_timeout=_TIMEOUTS)

    def set_user_namespace(self, namespace: str) -> None:
        self._context_setting["namespace"] = namespace


def make_client(address: Address, host: str) -> kfp.Client:
    """Return a client that authenticates as the address says; it has asked nothing yet of a single-user Kubeflow."""
    if address.ca and not address.ca.is_file():
        raise KubeflowError(f"{address.ca}: no such file of certificates; check --ca.")
    token, file = os.environ.get("KFP_EXISTING_TOKEN", "").strip(), _token_file(address)
    if token and not token.isprintable():
        raise KubeflowError("KFP_EXISTING_TOKEN holds characters that no token has; set it again.")
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore", FutureWarning)
        client = _Client(
            host=host,
            existing_token=token or None,
            credentials=ServiceAccountTokenVolumeCredentials(str(file)) if file else None,
            namespace=address.namespace or INSTALLED_IN,
            ssl_ca_cert=str(address.ca) if address.ca else None,
        )
    _watch(client, host)
    return client


def get(client: kfp.Client, path: str, **query: str) -> Any:
    """Return what a path answers, authenticated like every call; for what kfp has no method for."""
    api = client._run_api.api_client
    return api.call_api(
        path, "GET", query_params=list(query.items()), header_params={"Accept": "application/json"},
        response_type="object", auth_settings=["Bearer"], _return_http_data_only=True,
    )  # fmt: skip


def _watch(client: kfp.Client, host: str) -> None:
    """Give every call a limit, since kfp passes none on, and take no web page for an answer."""
    api = client._run_api.api_client
    ask = api.request

    def request(*args: Any, _request_timeout: Any = None, **kwargs: Any) -> Any:
        response = ask(*args, _request_timeout=_request_timeout or _TIMEOUTS, **kwargs)
        if (response.getheader("content-type") or "").startswith("text/html"):
            raise web_page(host)
        return response

    api.request = request


@contextmanager
def _host(address: Address) -> Iterator[tuple[str, str | None]]:
    """Give the host to ask, and the one for a browser."""
    ui = os.environ.get("KF_PIPELINES_UI_ENDPOINT", "").rstrip("/") or None
    if host := _given(address):
        yield host, ui or host
    elif "KUBERNETES_SERVICE_HOST" in os.environ:
        yield _IN_CLUSTER, ui
    else:
        with forwarded(INSTALLED_IN, f"service/{_UI_SERVICE}", 80) as port:
            yield f"http://127.0.0.1:{port}", ui


def _given(address: Address) -> str | None:
    """Return the host that is named; None where it is found by way of the cluster."""
    host = address.host or os.environ.get("KFP_ENDPOINT") or os.environ.get("KF_PIPELINES_ENDPOINT")
    return _url(host) if host else None


def _url(host: str) -> str:
    """Return a host as the address of an API: with its scheme, without what a browser's address line adds."""
    found = urlsplit(host if "://" in host else f"https://{host}")
    if found.username or found.password:
        raise KubeflowError("the host holds a user or a password; leave them out, and set KFP_EXISTING_TOKEN.")
    if found.scheme not in ("http", "https") or not found.hostname:
        raise KubeflowError(f"{host}: no address of a host; give one such as https://kubeflow.example.com/pipeline.")
    return f"{found.scheme}://{found.netloc}{found.path}".rstrip("/")


def _token_file(address: Address) -> Path | None:
    """Return the file of the token, if one is given or lies where Kubeflow mounts it."""
    given = address.token_file or os.environ.get("KF_PIPELINES_SA_TOKEN_PATH")
    if given:
        if not Path(given).is_file():
            raise KubeflowError(f"{given}: no such token file; mount the token volume, or set KFP_EXISTING_TOKEN.")
        return Path(given)
    return Path(KF_PIPELINES_SA_TOKEN_PATH) if Path(KF_PIPELINES_SA_TOKEN_PATH).is_file() else None


def _how_authenticated(address: Address) -> str:
    """Return where the token comes from; never the token."""
    if os.environ.get("KFP_EXISTING_TOKEN"):
        return "the token of KFP_EXISTING_TOKEN"
    file = _token_file(address)
    return f"the token in {file}" if file else "no token"


def _namespace(address: Address, multi_user: bool) -> str | None:
    """Return whose runs are meant; a Kubeflow of a single user has no namespaces, whatever the environment says.

    Raises:
        KubeflowError: A namespace is missing.
    """
    if not multi_user:
        return None
    if address.namespace:
        return address.namespace
    if _POD_NAMESPACE.is_file():
        return _POD_NAMESPACE.read_text().strip()
    raise KubeflowError(
        "this Kubeflow keeps users apart by namespaces; give yours (your profile): --namespace NAME or KFP_NAMESPACE."
    )
