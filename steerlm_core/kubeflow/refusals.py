"""What Kubeflow's refusals mean, in one sentence each; a token never stands in one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from kfp_server_api import ApiException
from urllib3.exceptions import HTTPError, MaxRetryError, NameResolutionError, SSLError

from steerlm_core.errors import KubeflowError

_LONGEST = 300
_INTERNAL = 13  # gRPC's number
_API = "the API is at https://HOST/pipeline on a Kubeflow platform"


@contextmanager
def said_plainly(host: str, token: str) -> Iterator[None]:
    """Turn what kfp.Client raises into a KubeflowError.

    Args:
        host: Whom it asks.
        token: How it authenticates, such as "no token".
    """
    try:
        yield
    except ApiException as error:
        raise KubeflowError(refusal(host, token, error)) from error
    except HTTPError as error:
        raise KubeflowError(unreachable(host, error)) from error


def web_page(host: str) -> KubeflowError:
    """Return the error for a web page that came where JSON was due; the client would take it for an empty answer."""
    return KubeflowError(
        f"{host} answers with a web page, a login perhaps: set KFP_EXISTING_TOKEN to a valid token, and check --host "
        f"({_API})."
    )


def refusal(host: str, token: str, error: ApiException) -> str:
    """Return what an answer other than 2xx means."""
    words = server_words(error)
    if error.status == 401:
        return f"{host} does not accept {token} (401): {_way_to_a_token(token)}"
    if error.status == 403:
        return f"{host} forbids this to {token} (403: {words}); ask for access to the namespace, or give another one."
    if error.status in (404, 405) and not _from_the_api(error):
        return f"{host} is no Kubeflow Pipelines API ({error.status}): {_API}."
    if error.status in (502, 503, 504):
        return f"{host} answers {error.status}: Kubeflow Pipelines is starting or down; try again."
    return f"{host} refuses ({error.status}): {words}."


def has_no_workflow(error: ApiException) -> bool:
    """Whether Kubeflow could not terminate a run as its Workflow does not exist: error 13, and Kubernetes' words."""
    try:
        body = json.loads(error.body or "")
        return body.get("code") == _INTERNAL and "not found" in str(body.get("message"))
    except (ValueError, AttributeError):
        return False


def server_words(error: ApiException) -> str:
    """Return the server's own message, cut to one line."""
    try:
        body = json.loads(error.body or "")
        words = body.get("message") or body.get("error_message") or body.get("error") or ""
    except (ValueError, AttributeError):
        words = error.reason or ""
    line = " ".join(str(words).split())
    return (line[:_LONGEST] + "…") if len(line) > _LONGEST else line.rstrip(".") or "no reason given"


def unreachable(host: str, error: HTTPError) -> str:
    """Return why no answer came."""
    cause = error.reason if isinstance(error, MaxRetryError) and error.reason else error
    if isinstance(cause, SSLError):
        return f"{host}: {_tls(str(cause))}"
    if isinstance(cause, NameResolutionError):
        return f"{host}: there is no host {urlsplit(host).hostname}; check --host or KFP_ENDPOINT."
    reason = str(cause).rpartition(": ")[2]
    return f"{host} does not answer ({reason}); check --host or KFP_ENDPOINT, and whether a port-forward still runs."


def _tls(cause: str) -> str:
    if "WRONG_VERSION_NUMBER" in cause:
        return "it does not speak TLS there; give the address with http://."
    if "CERTIFICATE_VERIFY_FAILED" in cause:
        why = cause.rpartition("CERTIFICATE_VERIFY_FAILED] ")[2].rpartition(" (_ssl")[0] or cause
        return f"its certificate cannot be trusted ({why}); give the authority's certificate: --ca FILE."
    return f"TLS failed ({cause})."


def _way_to_a_token(token: str) -> str:
    if token == "no token":
        return "set KFP_EXISTING_TOKEN, or mount the token volume of a service account (docs/kubeflow.md)."
    return "it is wrong or has expired; get a new one."


def _from_the_api(error: ApiException) -> bool:
    """Tell whether the API itself answered, or something before it."""
    try:
        return isinstance(json.loads(error.body or ""), dict)
    except ValueError:
        return False
