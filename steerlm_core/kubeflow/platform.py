"""The packaged pipeline for one cluster: `steerlm compile --platform platform.yaml`.

    pipeline.yaml ─► as many iterations as wanted ─► image, resources ─► what kfp-kubernetes adds to a pod

The compiled form itself is changed, so that an installed package needs neither the pipeline's source nor its
compiler. kfp-kubernetes' own functions write its part, by one executor for each step.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from kfp import kubernetes

from steerlm_core.errors import ConfigError, did_you_mean
from steerlm_core.kubeflow.chain import resize, room
from steerlm_core.kubeflow.packaged import pipeline_path
from steerlm_core.kubeflow.size import Workflow
from steerlm_core.observe.exposition import GATEWAY
from steerlm_core.platform import INLINE, SECRET_KEYS, AcceleratorConfig, PlatformConfig, StepPodConfig, inline

MODEL_STEPS = ("prepare", "generate", "score", "evaluate", "confirm")
_LAUNCHING = ("prepare", "train")  # train launches PyTorchJobs; prepare finds out beforehand whether it may
_CERTIFICATES, _SCRATCH, _MODELS = "/etc/steerlm/certificates", "/scratch", "/models"
_QUEUE = "kueue.x-k8s.io/queue-name"
_STAY = "cluster-autoscaler.kubernetes.io/safe-to-evict"


def write_pipeline(path: Path, platform: PlatformConfig | None, max_iterations: int | None) -> None:
    """Write the pipeline for a platform.

    Args:
        path: Where to.
        platform: The platform; None: any, with nothing set.
        max_iterations: Room for so many iterations; None: as packaged.

    Raises:
        ConfigError: The platform names a step that does not exist, or a run of so many iterations could not finish.
    """
    pipeline = yaml.safe_load(pipeline_path().read_text())
    if max_iterations is not None:
        resize(pipeline, max_iterations)
    documents = [pipeline]
    if platform is not None:
        documents.append({"platforms": {"kubernetes": {"deploymentSpec": {"executors": _set(pipeline, platform)}}}})
    text = yaml.safe_dump_all(documents, sort_keys=True)
    limit = (platform or PlatformConfig()).steps.max_workflow_size
    Workflow(pipeline, len(text), limit).check(room(pipeline["components"]), shards=1)
    path.write_text(text)


def _set(pipeline: dict[str, Any], platform: PlatformConfig) -> dict[str, Any]:
    """Set image and resources of every executor in place; return the Kubernetes part of each."""
    executors = pipeline["deploymentSpec"]["executors"]
    steps = {label: label.removeprefix("exec-").replace("-", "_") for label in executors}
    for name in platform.steps.each:
        if name not in steps.values():
            known = sorted(steps.values())
            raise ConfigError(f"steps.each.{name}: no step of the pipeline{did_you_mean(name, known)} {known}")
    for label, step in steps.items():
        _set_container(executors[label]["container"], pod_of(step, platform), platform, step)
    return {label: _kubernetes(step, pod_of(step, platform), platform) for label, step in steps.items()}


def pod_of(step: str, platform: PlatformConfig) -> StepPodConfig:
    """Return what the platform says of a step's pod."""
    usual = platform.steps.model if step in MODEL_STEPS else platform.steps.light
    return platform.steps.each.get(step, usual)


def _set_container(container: dict[str, Any], pod: StepPodConfig, platform: PlatformConfig, step: str) -> None:
    if platform.image.name:
        container["image"] = platform.image.name
    container["resources"] = {
        "resourceCpuRequest": pod.cpu,
        "resourceMemoryRequest": pod.memory,
        "resourceMemoryLimit": pod.memory,
        **_accelerator(pod.accelerator),
    }
    container["env"] = [{"name": name, "value": value} for name, value in _environment(platform, step).items()]


def _accelerator(accelerator: AcceleratorConfig) -> dict[str, Any]:
    if accelerator.name is None:
        return {}
    return {"accelerator": {"resourceType": accelerator.name, "resourceCount": str(accelerator.count)}}


def _environment(platform: PlatformConfig, step: str) -> dict[str, str]:
    values = {
        "HOME": "/tmp",
        "TMPDIR": _SCRATCH,
        "STEERLM_CACHE": f"{_SCRATCH}/cache",
        **platform.object_store.environment(_CERTIFICATES),
    }
    if step in _LAUNCHING:
        values[INLINE] = inline(platform)
    if platform.steps.pushgateway:
        values[GATEWAY] = platform.steps.pushgateway
    if _model_cache(platform) and step in MODEL_STEPS:
        values["STEERLM_MODEL_CACHE"] = _MODELS
    return values


def _kubernetes(step: str, pod: StepPodConfig, platform: PlatformConfig) -> dict[str, Any]:
    """What kfp-kubernetes adds to a step's pod."""
    task, store, user = SimpleNamespace(platform_config={}), platform.object_store, platform.steps.user
    kubernetes.set_security_context(task, run_as_user=user, run_as_group=user, run_as_non_root=True)
    kubernetes.set_image_pull_policy(task, platform.image.pull_policy)
    if platform.image.pull_secrets:
        kubernetes.set_image_pull_secrets(task, platform.image.pull_secrets)
    kubernetes.use_field_path_as_env(task, "POD_NAME", "metadata.name")
    kubernetes.empty_dir_mount(task, volume_name="scratch", mount_path=_SCRATCH, size_limit=pod.scratch)
    for key, optional in SECRET_KEYS.items():
        if store.secret:
            kubernetes.use_secret_as_env(task, store.secret, {key: key}, optional=optional)
    if store.ca_config_map:
        kubernetes.use_config_map_as_volume(task, store.ca_config_map, _CERTIFICATES)
    if (claim := _model_cache(platform)) and step in MODEL_STEPS:
        kubernetes.mount_pvc(task, claim, _MODELS)
    _place(task, step, pod)
    return dict(task.platform_config["kubernetes"])


def _place(task: SimpleNamespace, step: str, pod: StepPodConfig) -> None:
    for key, value in pod.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in pod.tolerations:
        kubernetes.add_toleration_json(task, [toleration])
    kubernetes.add_pod_label(task, "app.kubernetes.io/part-of", "steerlm")
    kubernetes.add_pod_label(task, "steerlm.dev/stage", step.replace("_", "-"))
    if pod.queue:
        kubernetes.add_pod_label(task, _QUEUE, pod.queue)
    if pod.accelerator.name or step == "train":
        kubernetes.add_pod_annotation(task, _STAY, "false")


def _model_cache(platform: PlatformConfig) -> str | None:
    source = platform.train_job.model_cache or {}
    return (source.get("persistentVolumeClaim") or {}).get("claimName")
