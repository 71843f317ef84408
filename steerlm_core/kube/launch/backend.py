"""The train backend `pytorchjob`: the training step of an iteration as a PyTorchJob."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

from steerlm_core.errors import ConfigError
from steerlm_core.kube.api.client import KubeApi, KubeObject, connect
from steerlm_core.kube.api.own_pod import Workflow, image_of, own_pod, workflow_of
from steerlm_core.kube.job.failure_classes import REMEDIES, TrainJobError
from steerlm_core.kube.job.permissions import NEEDED, WANTED, missing_permissions
from steerlm_core.kube.job.spec import JobTarget, build_job
from steerlm_core.kube.launch.launcher import Launcher
from steerlm_core.platform import PlatformConfig
from steerlm_core.run import Run
from steerlm_core.steps.context import StepContext
from steerlm_core.steps.train import model_output
from steerlm_core.store.manifest import Manifest

_log = logging.getLogger("steerlm.kube")


class PyTorchJobBackend:
    """Trains in a PyTorchJob, and waits for it.

    Making one asks the cluster whether the launcher may do what it will have to, so that a run finds
    out before its first step.
    """

    def __init__(self, run: Run) -> None:
        """Find the cluster, the image and the own Workflow.

        Args:
            run: The run, whose root the pods must reach.

        Raises:
            ConfigError: The root is on this machine, or no image is named where the launcher has none.
            TrainJobError: A permission is missing.
            ClusterError: There is no way into a cluster.
        """
        if not run.root.startswith("s3://"):
            raise ConfigError(
                f"'{run.root}': pods cannot reach this run root. Training in a PyTorchJob needs one in S3; "
                "runtime.backend: local (--backend local) trains here."
            )
        self._platform = run.platform or PlatformConfig()
        self._api = connect(self._platform.train_job.namespace)
        pod = own_pod(self._api)
        self._image = _image(self._platform, pod)
        self._workflow = workflow_of(pod) if pod else None
        self._owners: list[Mapping[str, str]] = []
        self._warnings = _check_permissions(self._api)
        if self._workflow and self._workflow.namespace == self._api.namespace:
            self._owners.append(self._workflow.reference)
        elif self._workflow:  # the garbage collector deletes what names an owner in another namespace
            self._warnings.append(_without_owner(self._workflow, self._api.namespace))

    def train(self, context: StepContext) -> Manifest:
        """Have the model trained and committed.

        Raises:
            TrainJobError: It could not be.
            TrainingStoppedError: SIGTERM came; the job goes on.
        """
        for words in self._warnings:
            _log.info("%s", words)
            context.events.warning(words)
        output = model_output(context)
        target = JobTarget.of(context.store.root, context.run_id, context.config, context.iteration)
        launcher = Launcher(
            self._api,
            context.store,
            self._platform.train_job,
            lambda attempt: self._manifest(target, attempt),
            context.events,
            committed=lambda: output.existing() is not None,
            name=f"{socket.gethostname()} process {os.getpid()}",
            workflow=self._workflow,
        )
        launcher.run()
        manifest = output.existing()
        assert manifest is not None
        return manifest

    def _manifest(self, target: JobTarget, attempt: int) -> KubeObject:
        return build_job(target, self._platform, self._image, self._api.namespace, attempt, self._owners)


def _image(platform: PlatformConfig, pod: KubeObject | None) -> str:
    if platform.image.name:
        return platform.image.name
    if pod is None:
        raise ConfigError(
            "image.name: not given, and this process runs in no pod whose image it could be. Name the image of the "
            "training pods in the platform file (--platform, or STEERLM_PLATFORM)."
        )
    return image_of(pod)


def _without_owner(workflow: Workflow, namespace: str) -> str:
    return (
        f"train_job.namespace is {namespace}, and the Workflow {workflow.name} is in {workflow.namespace}: it cannot "
        "own the training job, so a Workflow that is deleted while no launcher watches leaves the job running for "
        "train_job.orphan_after_seconds"
    )


def _check_permissions(api: KubeApi) -> list[str]:
    """Return warnings about permissions that would be good to have."""
    if lacking := missing_permissions(api, NEEDED):
        names = ", ".join(map(str, lacking))
        raise TrainJobError(
            "forbidden",
            f"forbidden: this account may not {names} in namespace {api.namespace}. {REMEDIES['forbidden']}",
        )
    return [f"this account may not {lacks} in namespace {api.namespace}" for lacks in missing_permissions(api, WANTED)]
