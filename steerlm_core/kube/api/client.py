"""The Kubernetes API as the launcher needs it: plain JSON, a time-out on every call, errors with words.

The client library brings the way in (kubeconfig, the service account of a pod, token refresh) and the
connection; objects stay the dictionaries that the API server sent, so that no field is lost on the way.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from steerlm_core.errors import SteerLMError
from steerlm_core.retry import retry_for

KubeObject = dict[str, Any]
Query = Mapping[str, str | int | bool]
T = TypeVar("T")

_CONNECT_SECONDS, _READ_SECONDS = 5.0, 30.0
DENIED_SECONDS = 120.0
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_OWN_AUTHORITY = _OWN_NAMESPACE.with_name("ca.crt")


class ClusterError(SteerLMError):
    """The cluster said no, or nothing; `status` is the HTTP status, 0 where no answer came."""

    status = 0

    def __init__(self, message: str, status: int = 0) -> None:
        """Keep the status beside the words."""
        super().__init__(message)
        self.status = status

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed in a moment: no answer, too many requests, an error of the server."""
        return self.status in (0, 408, 429) or self.status >= 500

    def may_pass(self, seconds: float, denied: float = DENIED_SECONDS) -> bool:
        """Whether the same call may succeed yet, after so long.

        Args:
            seconds: Since it last succeeded, or was first made.
            denied: So long a server that has just started knows no permissions, and says 403.
        """
        return self.transient or (self.status == 403 and seconds < denied)


class ForbiddenError(ClusterError):
    """The service account or user lacks a permission."""


class GoneError(ClusterError):
    """The resource version to watch from has expired."""


class KubeApi:
    """The API server of one cluster, in one namespace."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        """Wrap a client; `connect` makes one."""
        self._api, self.namespace = api, namespace

    def request(
        self,
        method: str,
        path: str,
        body: KubeObject | None = None,
        query: Query = MappingProxyType({}),
        read_seconds: float = _READ_SECONDS,
    ) -> KubeObject:
        """Make one call and return the answer's JSON.

        Args:
            method: GET, POST, PATCH (a JSON merge patch), DELETE.
            path: Path below the server's address.
            body: JSON to send.
            query: Query parameters.
            read_seconds: How long to wait for the answer.

        Raises:
            ForbiddenError: A permission is missing, or an admission controller refuses.
            GoneError: The resource version has expired.
            ClusterError: Any other refusal, or no answer.
        """
        with self._open(method, path, body, query, read_seconds) as answer:
            data = _guarded(f"{method} {path}", lambda: answer.read())
        return cast(KubeObject, json.loads(data))

    def get(self, path: str) -> KubeObject | None:
        """Get one object; None where there is none."""
        try:
            return self.request("GET", path)
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    def lines(self, path: str, query: Query, read_seconds: float) -> Iterator[bytes]:
        """Make one call and return the lines of its answer as they come; ends when the server ends it.

        Raises:
            ClusterError: As `request`; also when nothing has come for `read_seconds`.
        """
        with self._open("GET", path, None, query, read_seconds) as answer:
            rest = b""
            stream = answer.stream(1 << 16, decode_content=False)
            while (piece := _guarded(f"GET {path}", lambda: next(stream, None))) is not None:
                *whole, rest = (rest + piece).split(b"\n")
                yield from whole
            if rest:
                yield rest

    def can_i(self, verb: str, resource: str, group: str = "", subresource: str = "") -> bool:
        """Whether we have a permission in the namespace."""
        wanted = {"namespace": self.namespace, "verb": verb, "resource": resource, "group": group}
        if subresource:
            wanted["subresource"] = subresource
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": wanted},
        }
        answer = self.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        return bool(answer["status"]["allowed"])

    def _open(self, method: str, path: str, body: KubeObject | None, query: Query, read_seconds: float) -> Any:
        content = "application/merge-patch+json" if method == "PATCH" else "application/json"

        def call() -> Any:
            return self._api.call_api(
                path,
                method,
                query_params=[(k, str(v).lower() if isinstance(v, bool) else v) for k, v in query.items()],
                header_params={"Accept": "*/*", "Content-Type": content},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=(_CONNECT_SECONDS, read_seconds),
            )[0]

        return _guarded(f"{method} {path}", call)


def connect(namespace: str | None = None) -> KubeApi:
    """Connect by the service account of this pod, else by the kubeconfig.

    Args:
        namespace: Where to work; None: the pod's own, else the kubeconfig's.

    Raises:
        ClusterError: Neither way in is there.
    """
    settings = client.Configuration()
    home = default_namespace()
    with _way_in():
        if own_namespace():
            config.load_incluster_config(client_configuration=settings)
        else:
            config.load_kube_config(client_configuration=settings)
    settings.retries = False  # ours, below, tell what may be repeated from what may not
    settings.connection_pool_maxsize = 8
    return KubeApi(client.ApiClient(settings), namespace or home)


def default_namespace() -> str:
    """Return where `connect` works if it is told no namespace; the API server is not asked.

    Raises:
        ClusterError: There is no way into a cluster.
    """
    if home := own_namespace():
        return home
    with _way_in():
        return str(config.list_kube_config_contexts()[1]["context"].get("namespace") or "default")


@contextmanager
def _way_in() -> Iterator[None]:
    try:
        yield
    except (config.ConfigException, OSError, yaml.YAMLError) as error:
        raise ClusterError(
            f"no way into a cluster: {str(error).rstrip('.')}. Set KUBECONFIG, or run in a pod with a service account."
        ) from error


def own_namespace() -> str | None:
    """Return the namespace of the pod that this is; None outside of one."""
    inside = os.environ.get("KUBERNETES_SERVICE_HOST") and _OWN_NAMESPACE.is_file()
    return _OWN_NAMESPACE.read_text().strip() if inside else None


def own_cluster() -> str:
    """Return what tells the cluster of this pod from others, by its certificate authority; empty outside of one."""
    inside = own_namespace() is not None and _OWN_AUTHORITY.is_file()
    return hashlib.sha256(_OWN_AUTHORITY.read_bytes()).hexdigest()[:12] if inside else ""


def patiently(what: Callable[[], T], seconds: float, denied: float = 0.0) -> T:
    """Call the API server again while its error may pass; raise the last after `seconds`.

    Args:
        what: The call; it must be safe to repeat.
        seconds: How long to try.
        denied: How long a 403 is taken for that of a server that has just started.
    """
    return retry_for(
        seconds, what, lambda error, past: isinstance(error, ClusterError) and error.may_pass(past, denied)
    )


def _guarded(call: str, action: Callable[[], T]) -> T:
    try:
        return action()
    except ApiException as error:
        raise _refused(call, error) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ClusterError(f"{call}: no answer from the API server ({error}).") from error


def _refused(call: str, error: ApiException) -> ClusterError:
    status = int(error.status or 0)
    try:
        words = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        words = error.reason
    kind = {403: ForbiddenError, 410: GoneError}.get(status, ClusterError)
    return kind(f"{call}: {words} (HTTP {status}).", status)
