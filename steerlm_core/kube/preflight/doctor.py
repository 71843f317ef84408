"""Whether a cluster is ready for training jobs, before one is started: each check with the command that repairs it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from urllib.parse import urlsplit

from steerlm_core.errors import SteerLMError
from steerlm_core.kube.api import paths
from steerlm_core.kube.api.client import ClusterError, KubeApi, connect
from steerlm_core.kube.api.own_pod import image_of, own_pod
from steerlm_core.kube.job.permissions import NEEDED, OF_WORKFLOWS, WANTED, Permission
from steerlm_core.kube.preflight.check import Check, State, unless_forbidden
from steerlm_core.kube.preflight.controllers import check_crd, check_operator, check_queue
from steerlm_core.kube.preflight.dry_run import dry_run_job, dry_run_pod, pods_of, sample_job, sample_pods
from steerlm_core.kube.preflight.quota import check_quotas
from steerlm_core.platform import SECRET_KEYS, ObjectStoreConfig, PlatformConfig

_ARGO = "/apis/argoproj.io/v1alpha1"
_ENFORCE = "pod-security.kubernetes.io/enforce"
_KEYS = tuple(key for key, optional in SECRET_KEYS.items() if not optional)
_AWS_HOSTS = (".amazonaws.com", ".amazonaws.com.cn")
_AS_PODS = (
    "Correct object_store of the platform file, or try what it says: AWS_ENDPOINT_URL_S3, AWS_CA_BUNDLE (an address "
    "within the cluster: from there)."
)
_ANY_IMAGE = "image"  # where admission of the pods is tried and no image is known


def examine(platform: PlatformConfig, root: str | None, home: str | None = None) -> Iterator[Check]:
    """Yield one check after the other; those that rest on a failed one are left out.

    Args:
        platform: The platform file.
        root: A run root whose store is tried; None: none is.
        home: Namespace to look at if the platform file names none; None: that of the pod or the kubeconfig.
    """
    try:
        api = connect(platform.train_job.namespace or home)
        version, user = api.request("GET", "/version")["gitVersion"], _user(api)
    except ClusterError as error:
        yield Check("API server", State.FAILED, str(error), "kubectl config get-contexts; kubectl cluster-info")
        return
    yield Check("API server", State.OK, f"Kubernetes {version}; this is {user}, namespace {api.namespace}")
    yield (crd := check_crd(api))
    yield (namespace := unless_forbidden("Pod Security", lambda: _pod_security(api)))
    if namespace.state is State.FAILED:
        return
    yield _image(api, platform)
    yield from _permissions(api, user)
    yield from _objects(api, platform)
    if crd.state is State.OK:
        yield from _dry_runs(api, platform)
    yield check_store(root, platform.object_store)


def _user(api: KubeApi) -> str:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = api.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body)
    return str(answer["status"]["userInfo"]["username"])


def _pod_security(api: KubeApi) -> Check:
    found = api.get(f"/api/v1/namespaces/{api.namespace}")
    if found is None:
        create = f"kubectl create namespace {api.namespace}"
        return Check("namespace", State.FAILED, f"there is no namespace {api.namespace}", create)
    enforced = found["metadata"].get("labels", {}).get(_ENFORCE, "nothing")
    return Check("Pod Security", State.OK, f"the namespace enforces {enforced}")


def _image(api: KubeApi, platform: PlatformConfig) -> Check:
    if platform.image.name:
        return Check("image", State.OK, platform.image.name)
    if pod := own_pod(api):
        return Check("image", State.OK, f"that of this pod, {image_of(pod)}")
    found = "none named, which runs started outside of a pod need"
    return Check("image", State.WARNING, found, "Set image.name in the platform file.")


def _permissions(api: KubeApi, user: str) -> Iterator[Check]:
    argo = OF_WORKFLOWS if api.get(_ARGO) else ()
    for among, lacking in ((NEEDED, State.FAILED), (WANTED, State.WARNING), (argo, State.WARNING)):
        for resource, some in groupby(among, lambda permission: permission.role_resource):
            yield _may(api, user, resource, list(some), lacking)


def _may(api: KubeApi, user: str, resource: str, permissions: list[Permission], lacking: State) -> Check:
    missing = [permission.verb for permission in permissions if not permission.held(api)]
    if not missing:
        return Check(resource, State.OK, f"this account may {', '.join(each.verb for each in permissions)}")
    name = f"steerlm-{resource.replace('/', '-')}"
    of = f"{permissions[0].resource}.{permissions[0].group}".rstrip(".")
    of += f"/{permissions[0].subresource}" if permissions[0].subresource else ""
    parts = user.split(":")
    subject = (
        f"--serviceaccount={parts[2]}:{parts[3]}" if parts[:2] == ["system", "serviceaccount"] else f"--user={user}"
    )
    verbs = ",".join(permission.verb for permission in permissions)
    repair = (
        f"kubectl -n {api.namespace} create role {name} --verb={verbs} --resource={of} && "
        f"kubectl -n {api.namespace} create rolebinding {name} --role={name} {subject}"
    )
    return Check(resource, lacking, f"this account may not {', '.join(missing)}", repair)


def _objects(api: KubeApi, platform: PlatformConfig) -> Iterator[Check]:
    """Look for what the platform file names."""
    store, job = platform.object_store, platform.train_job
    at = f"kubectl -n {api.namespace} create"
    yield _exists(api, "serviceaccounts", job.service_account, (), f"{at} serviceaccount {job.service_account}")
    if store.secret:
        keys = " ".join(f"--from-literal={key}=…" for key in _KEYS)
        yield _exists(api, "secrets", store.secret, _KEYS, f"{at} secret generic {store.secret} {keys}")
    if store.ca_config_map:
        create = f"{at} configmap {store.ca_config_map} --from-file=ca.crt"
        yield _exists(api, "configmaps", store.ca_config_map, ("ca.crt",), create)
    for name in platform.image.pull_secrets:
        create = f"{at} secret docker-registry {name} --docker-server=… --docker-username=… --docker-password=…"
        yield _exists(api, "secrets", name, (), create)


def _exists(api: KubeApi, resource: str, name: str, keys: tuple[str, ...], create: str) -> Check:
    what = f"{resource.removesuffix('s')} {name}"

    def look() -> Check:
        found = api.get(f"/api/v1/namespaces/{api.namespace}/{resource}/{name}")
        if found is None:
            return Check(what, State.FAILED, "missing", create)
        lacking = [key for key in keys if not found.get("data", {}).get(key)]
        if lacking:
            remove = f"kubectl -n {api.namespace} delete {resource.removesuffix('s')} {name} && {create}"
            return Check(what, State.FAILED, f"has no {', '.join(lacking)}", remove)
        return Check(what, State.OK, "there" + (f", with {', '.join(keys)}" if keys else ""))

    return unless_forbidden(what, look)


def _dry_runs(api: KubeApi, platform: PlatformConfig) -> Iterator[Check]:
    job = sample_job(platform, platform.image.name or _ANY_IMAGE, api.namespace)
    operator, check = check_operator(api)
    yield check
    made = None
    if api.can_i("create", "pytorchjobs", paths.JOB_GROUP):
        check, made = dry_run_job(api, job)
        yield check
    if name := platform.train_job.queue:
        yield unless_forbidden("Kueue", lambda: check_queue(api, name, made))
    if api.can_i("create", "pods"):
        for kind, pod in sample_pods(job, operator):
            yield dry_run_pod(api, kind, pod, operator)
    else:
        yield Check(
            "dry run of the pods", State.UNKNOWN, "this account may not create pods; run doctor as one that may"
        )
    quotas = partial(api.request, "GET", f"/api/v1/namespaces/{api.namespace}/resourcequotas")
    yield unless_forbidden("room in the quota", lambda: check_quotas(quotas()["items"], [*pods_of(job)], api.namespace))


def check_store(root: str | None, pods: ObjectStoreConfig) -> Check:
    """Return whether runs can be kept at a root, tried from here; without one it is not tried.

    Args:
        root: The run root.
        pods: How pods reach the store: where that is another way, nothing is known of it.
    """
    what = "object store"
    if root is None:
        return Check(what, State.UNKNOWN, "not tried", "Give a place for a run: --root s3://BUCKET/PREFIX")
    if not root.startswith("s3://"):
        return Check(what, State.FAILED, f"'{root}' is not to be reached from a pod", "Give --root s3://BUCKET/PREFIX")
    from steerlm_core.store import open_store
    from steerlm_core.store.probe import probe
    from steerlm_core.store.s3 import endpoint

    try:
        here = endpoint()
        probe(open_store(root))
    except SteerLMError as error:
        return Check(what, State.FAILED, str(error), "Correct the address, the credentials or the bucket's policy.")
    found = f"{root} can be written to from here, at {here}, and honours conditional puts"
    if other := _other_way(here, pods):
        return Check(what, State.UNKNOWN, f"{found}; but {other}", _AS_PODS)
    return Check(what, State.OK, found)


def _other_way(here: str, pods: ObjectStoreConfig) -> str:
    """Say what pods do otherwise than this process, which asks the address `here`; empty if nothing."""
    aws = str(urlsplit(here).hostname).endswith(_AWS_HOSTS)
    if not (aws if pods.endpoint is None else here.rstrip("/") == pods.endpoint.rstrip("/")):
        return f"pods ask {pods.endpoint or 'AWS'} (object_store.endpoint), which was not tried"
    bundle = os.environ.get("AWS_CA_BUNDLE")
    if here.startswith("https:") and (bundle or pods.ca_config_map):
        theirs = f"configmap {pods.ca_config_map}" if pods.ca_config_map else "what their image trusts"
        return f"pods check its certificate against {theirs}, and this process against {bundle or 'what it trusts'}"
    return ""
