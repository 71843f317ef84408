"""The pod template of a training job: what Pod Security `restricted` wants, and what training needs beside it.

The root file system is read-only; a pod writes to /scratch, /tmp and /dev/shm, which go with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steerlm_core.platform import SECRET_KEYS, ObjectStoreConfig, PlatformConfig, ResourcesConfig, TrainJobConfig

CONTAINER = "pytorch"  # the operator looks for this name
MODULE = "steerlm_core.kube.pod"
METRICS_PORT = 9090
TERMINATION_LOG = "/dev/termination-log"

SCRATCH, TMP, SHM, MODELS = "/scratch", "/tmp", "/dev/shm", "/models"
_CERTIFICATES = "/etc/steerlm/certificates"
_OPERATOR_LABEL = "training.kubeflow.org/job-name"
_NO_SIDECAR = {"sidecar.istio.io/inject": "false"}  # a proxy would outlive training, and hide peers from each other
_SPREAD = {"prefer": "ScheduleAnyway", "require": "DoNotSchedule"}


def pod_template(
    job: str, arguments: Sequence[str], labels: Mapping[str, str], platform: PlatformConfig, image: str
) -> dict[str, Any]:
    """Return the template of every replica.

    Args:
        job: Name of the job.
        arguments: Of the pods' entry point.
        labels: Of the pods.
        platform: The platform file.
        image: Image of the container.
    """
    config, store = platform.train_job, platform.object_store
    spec = {
        "serviceAccountName": config.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": config.stop_seconds,
        "securityContext": _security(config),
        "containers": [_container(arguments, platform, image)],
        "volumes": _volumes(config, store),
        **_placement(job, config),
    }
    if platform.image.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in platform.image.pull_secrets]
    return {"metadata": {"labels": {**labels, **_NO_SIDECAR}, "annotations": dict(_NO_SIDECAR)}, "spec": spec}


def _container(arguments: Sequence[str], platform: PlatformConfig, image: str) -> dict[str, Any]:
    config = platform.train_job
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": platform.image.pull_policy,
        "command": ["python3", "-m", MODULE],
        "args": list(arguments),
        "env": [*_environment(config), *_store_environment(platform.object_store)],
        "ports": [{"name": "metrics", "containerPort": METRICS_PORT}],
        "resources": _resources(config),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(config, platform.object_store),
    }


def _environment(config: TrainJobConfig) -> list[dict[str, Any]]:
    values = {
        "HF_HUB_OFFLINE": "1",
        "HOME": SCRATCH,
        "OMP_NUM_THREADS": str(config.threads),
        # So long torchrun waits for the other nodes. Its own 15 minutes are less than a node may take to come, which
        # the launcher's budgets decide; the job's deadline is beyond them all, and no budget enters the spec.
        "PET_RDZV_CONF": f"timeout={config.active_deadline_seconds}",
        "PYTHONUNBUFFERED": "1",
        "STEERLM_METRICS_PORT": str(METRICS_PORT),
        "TMPDIR": SCRATCH,
        # torchrun kills ranks so long after SIGTERM; the rest of the time is for the upload of their checkpoint.
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(max(config.stop_seconds * 2 // 3, 1)),
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        "USER": "steerlm",  # torch asks for the user's name, which a numeric user does not have
    }
    if config.model_cache is not None:
        values["STEERLM_MODEL_CACHE"] = MODELS
    return _variables(values)


def _store_environment(store: ObjectStoreConfig) -> list[dict[str, Any]]:
    secrets = [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": store.secret, "key": key, "optional": optional}}}
        for key, optional in SECRET_KEYS.items()
        if store.secret
    ]
    return _variables(store.environment(_CERTIFICATES)) + secrets


def _variables(values: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _resources(config: TrainJobConfig) -> dict[str, Any]:
    resources: ResourcesConfig = config.resources
    limits = {"memory": resources.memory, "ephemeral-storage": resources.ephemeral_storage}
    if config.accelerator.name:
        limits[config.accelerator.name] = str(config.accelerator.count)
    cpu = {"cpu": resources.cpu_limit} if resources.cpu_limit else {}
    return {"requests": {"cpu": resources.cpu, **limits}, "limits": {**cpu, **limits}}


def _security(config: TrainJobConfig) -> dict[str, Any]:
    user = config.user
    ids = {"runAsUser": user, "runAsGroup": user, "fsGroup": user, "fsGroupChangePolicy": "OnRootMismatch"}
    return {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, **(ids if user else {})}


def _volumes(config: TrainJobConfig, store: ObjectStoreConfig) -> list[dict[str, Any]]:
    resources = config.resources
    volumes: list[dict[str, Any]] = [
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": resources.shared_memory}},
        {"name": "scratch", "emptyDir": {"sizeLimit": resources.scratch}},
        {"name": "tmp", "emptyDir": {"sizeLimit": resources.tmp}},
    ]
    if config.model_cache is not None:
        volumes.append({"name": "models", **config.model_cache})
    if store.ca_config_map:
        volumes.append({"name": "certificates", "configMap": {"name": store.ca_config_map}})
    return volumes + config.volumes


def _mounts(config: TrainJobConfig, store: ObjectStoreConfig) -> list[dict[str, Any]]:
    places = {"shm": SHM, "scratch": SCRATCH, "tmp": TMP}
    if config.model_cache is not None:
        places["models"] = MODELS
    mounts: list[dict[str, Any]] = [{"name": name, "mountPath": path} for name, path in places.items()]
    if store.ca_config_map:
        mounts.append({"name": "certificates", "mountPath": _CERTIFICATES, "readOnly": True})
    return mounts + config.volume_mounts


def _placement(job: str, config: TrainJobConfig) -> dict[str, Any]:
    placement: dict[str, Any] = {
        "nodeSelector": config.node_selector,
        "tolerations": config.tolerations,
        "affinity": config.affinity,
        "priorityClassName": config.priority_class,
    }
    if config.spread in _SPREAD:
        placement["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": _SPREAD[config.spread],
                "labelSelector": {"matchLabels": {_OPERATOR_LABEL: job}},
            }
        ]
    return {key: value for key, value in placement.items() if value}


def pod_selector(job: str) -> dict[str, str]:
    """The query that selects a job's pods."""
    return {"labelSelector": f"{_OPERATOR_LABEL}={job}"}
