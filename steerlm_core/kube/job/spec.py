"""The PyTorchJob of one attempt at a training step: a pure function of what is trained and of the platform.

    JobTarget, PlatformConfig ─► build_job ─► manifest      name = stage, hash of the spec, attempt

Two launchers that want the same job derive the same name, so the API server lets one of them create it; the
annotation `steerlm.dev/spec-hash` tells the other whether the job it finds is the one it wanted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from steerlm_core import __version__
from steerlm_core.config import RunConfig, digest
from steerlm_core.errors import ConfigError
from steerlm_core.kube.job.patch import apply_patch
from steerlm_core.kube.job.pod_template import CONTAINER, pod_template
from steerlm_core.platform import PlatformConfig, TrainJobConfig

API_VERSION, KIND = "kubeflow.org/v1", "PyTorchJob"
SPEC_HASH = "steerlm.dev/spec-hash"
RUN, ITERATION, STAGE, ATTEMPT = (f"steerlm.dev/{name}" for name in ("run", "iteration", "stage", "attempt"))
QUEUE = "kueue.x-k8s.io/queue-name"

NAME_LENGTH = 40  # the operator appends "-worker-<n>" and makes services of it
_LABEL_LENGTH, _HASH_LENGTH = 63, 10
_MASTER = "Master"


@dataclass(frozen=True)
class JobTarget:
    """What a job trains.

    Attributes:
        root: The run root.
        run_id: Id of the run.
        iteration: Number of the iteration.
        stage: The step, `train`.
        version: Of steerlm.
        how: Settings of `train` that say how the work is done; they lie over those in run.json.
    """

    root: str
    run_id: str
    iteration: int
    stage: str
    version: str
    how: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, root: str, run_id: str, config: RunConfig, iteration: int) -> JobTarget:
        """Return the target of the train step of an iteration."""
        # Pods find out by themselves how many processes there are, and so which engine.
        how = config.train.model_dump(mode="json", include=set(config.train.HOW - {"engine", "processes"}))
        return cls(root, run_id, iteration, "train", __version__, how)


def build_job(
    target: JobTarget,
    platform: PlatformConfig,
    image: str,
    namespace: str,
    attempt: int,
    owners: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the whole manifest.

    Args:
        target: What is trained.
        platform: The platform file.
        image: Image of the pods.
        namespace: Where the job is created.
        attempt: Number of the attempt, from 0.
        owners: Owner references: with the last of them the job is garbage.

    Raises:
        ConfigError: A patch of the platform file does not fit the manifest.
    """
    # The spec holds the name, and the name a hash of the spec: it is taken of the job without one.
    sha256 = spec_hash(_manifest("", target, platform, image, namespace, attempt))
    manifest = _manifest(job_name(target, sha256, attempt), target, platform, image, namespace, attempt)
    manifest["metadata"]["annotations"] = {**manifest["metadata"].get("annotations", {}), SPEC_HASH: sha256}
    if owners:
        manifest["metadata"]["ownerReferences"] = [dict(owner) for owner in owners]
    return manifest


def spec_hash(manifest: Mapping[str, Any]) -> str:
    """Return the hash of a job without its name, attempt and owners: equal for equal work done the same way."""
    name = manifest["metadata"]["name"]

    def bare(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: bare(v) for k, v in value.items() if k not in (ATTEMPT, SPEC_HASH, "ownerReferences")}
        if isinstance(value, list):
            return [bare(item) for item in value]
        return "" if value == name else value

    return digest(bare({"metadata": {"annotations": {}, **manifest["metadata"]}, "spec": manifest["spec"]}))


def job_name(target: JobTarget, spec_hash: str, attempt: int) -> str:
    """Return the name of an attempt: a DNS label of at most 40 characters. The hash knows run and iteration."""
    stage = re.sub(r"[^a-z0-9]+", "-", target.stage.lower())
    name = f"{stage}-{spec_hash[:_HASH_LENGTH]}-{attempt}"
    assert len(name) <= NAME_LENGTH
    return name


def _manifest(
    name: str, target: JobTarget, platform: PlatformConfig, image: str, namespace: str, attempt: int
) -> dict[str, Any]:
    config = platform.train_job
    labels = _labels(target, attempt)
    pod = pod_template(name, _arguments(name, target, config), labels, platform, image)
    pod = apply_patch(pod, config.patch.pod, "train_job.patch.pod")
    _check_container(pod)
    replicas = {_MASTER: _replica(pod, 1)}
    if config.nodes > 1:
        replicas["Worker"] = _replica(pod, config.nodes - 1)
    queue = {QUEUE: config.queue} if config.queue else {}
    manifest = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace, "labels": labels | queue},
        "spec": {
            "nprocPerNode": str(config.processes),
            "runPolicy": {
                "activeDeadlineSeconds": config.active_deadline_seconds,
                "backoffLimit": 0,  # the launcher tries again, from the checkpoint
                "cleanPodPolicy": "Running",  # or workers keep their accelerators when the job has ended
                "ttlSecondsAfterFinished": config.ttl_seconds_after_finished,
            },
            "pytorchReplicaSpecs": replicas,
        },
    }
    return apply_patch(manifest, config.patch.job, "train_job.patch.job")


def _replica(pod: Mapping[str, Any], count: int) -> dict[str, Any]:
    # A single container that starts again would find its peers waiting for the one that died.
    return {"replicas": count, "restartPolicy": "Never", "template": deepcopy(dict(pod))}


def _arguments(name: str, target: JobTarget, config: TrainJobConfig) -> list[str]:
    return [
        "--root", target.root,
        "--iteration", str(target.iteration),
        "--job", name,
        "--orphan-after", str(config.orphan_after_seconds),
        *(["--how", json.dumps(dict(target.how), sort_keys=True)] if target.how else []),
    ]  # fmt: skip


def _check_container(pod: Mapping[str, Any]) -> None:
    names = [container["name"] for container in pod.get("spec", {}).get("containers", [])]
    if names.count(CONTAINER) != 1:
        raise ConfigError(
            f"train_job.patch.pod: leaves the containers {names}; the operator needs one named '{CONTAINER}'."
        )


def _labels(target: JobTarget, attempt: int) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "steerlm-train",
        "app.kubernetes.io/part-of": "steerlm",
        "app.kubernetes.io/version": label_value(target.version),
        RUN: label_value(target.run_id),
        ITERATION: str(target.iteration),
        STAGE: label_value(target.stage),
        ATTEMPT: str(attempt),
    }


def label_value(text: str) -> str:
    """Return a text as a label's value: what is too long ends in a hash of the whole, so that it stays unique."""
    value = re.sub(r"[^A-Za-z0-9_.-]", "_", text)
    if len(value) > _LABEL_LENGTH:
        value = f"{value[: _LABEL_LENGTH - _HASH_LENGTH - 1]}-{digest(text)[:_HASH_LENGTH]}"
    return value.strip("_.-")
