"""What a platform team fixes once for its cluster, beside every run: `platform.yaml`.

Nothing here changes a result, so nothing here enters a digest: a run goes on with other nodes, images or
budgets. Names of secrets stand here, secrets never. The words of Kubernetes are kept as they are.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from steerlm_core.config import Section, read_yaml, validated

FILE, INLINE = "STEERLM_PLATFORM", "STEERLM_PLATFORM_INLINE"
ADDRESSING = "STEERLM_S3_ADDRESSING"  # the AWS chain takes it from a file only, and a pipeline's step has none

_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
Quantity = Annotated[str, Field(pattern=_QUANTITY, coerce_numbers_to_str=True)]
Seconds = Annotated[int, Field(ge=1)]


class ImageConfig(Section):
    """The image of the training pods."""

    name: str | None = Field(None, description="Image, tag or digest included; none: the one the launcher runs in.")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="When it is pulled.")
    pull_secrets: list[str] = Field([], description="Names of the Secrets that it is pulled with.")


# Keys of the object store's Secret, which are the variables of a pod too; optional or not.
SECRET_KEYS = {"AWS_ACCESS_KEY_ID": False, "AWS_SECRET_ACCESS_KEY": False, "AWS_SESSION_TOKEN": True}


class ObjectStoreConfig(Section):
    """How pods reach the S3 store that holds run roots."""

    endpoint: str | None = Field(None, description="Address of the S3 API; none: that of AWS.")
    region: str = Field("us-east-1", description="Region; most stores other than AWS accept any.")
    path_style: bool = Field(True, description="With `endpoint`: address a bucket as its path, not as a host name.")
    secret: str | None = Field(
        "steerlm-object-store",
        description="Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if need be, AWS_SESSION_TOKEN; "
        "null: the service account's own cloud identity.",
    )
    ca_config_map: str | None = Field(
        None, description="ConfigMap whose `ca.crt` the store's certificate is checked against; none: the image's."
    )

    def environment(self, certificates: str) -> dict[str, str]:
        """Return the variables, secret ones apart, by which a pod finds the store.

        Args:
            certificates: Folder where `ca_config_map` is mounted.
        """
        values = {"AWS_REGION": self.region, "AWS_DEFAULT_REGION": self.region}  # boto3 reads the second
        if self.endpoint:
            values["AWS_ENDPOINT_URL_S3"] = self.endpoint
            if not self.path_style:  # with an endpoint, paths are what clients use unless told
                values[ADDRESSING] = "virtual"
        if self.ca_config_map:
            values["AWS_CA_BUNDLE"] = f"{certificates}/ca.crt"
        return values


class AcceleratorConfig(Section):
    """What a pod is given beside CPU and memory."""

    name: str | None = Field(
        None, description="Resource: nvidia.com/gpu, amd.com/gpu, nvidia.com/mig-1g.10gb, …; none: CPU only."
    )
    count: int = Field(1, ge=1, description="So many in each pod.")


class StepPodConfig(Section):
    """The pod of one of the pipeline's own steps."""

    cpu: Quantity = Field("500m", description="CPUs requested.")
    memory: Quantity = Field("2Gi", description="Memory, requested and limited alike.")
    accelerator: AcceleratorConfig = AcceleratorConfig()
    scratch: Quantity = Field("5Gi", description="Size of /scratch: local copies of models and parts.")
    node_selector: dict[str, str] = Field({}, description="Labels that a node must have.")
    tolerations: list[dict[str, Any]] = Field([], description="Taints that the pod bears.")
    queue: str | None = Field(None, description="Kueue's LocalQueue. Nobody heeds it without Kueue's integration pod.")


class StepsConfig(Section):
    """The pods of the pipeline's own steps."""

    service_account: str = Field(
        "pipeline-runner", description="Service account that they run as, and that launches training jobs."
    )
    user: int | None = Field(
        1000, ge=1, description="Numeric user and group of the pods; null: the image's own, or the namespace's."
    )
    pushgateway: str | None = Field(
        None,
        description="Address of a Prometheus Pushgateway that steps push their final state to, as most are too short "
        "to be scraped; none: the metrics of training pods alone are seen.",
    )
    max_workflow_size: int = Field(
        1_048_576,
        ge=1,
        description="Bytes that Argo lets the Workflow of a run have: MAX_WORKFLOW_SIZE of its "
        "workflow-controller. A pipeline whose runs would grow beyond is refused.",
    )
    light: StepPodConfig = Field(
        StepPodConfig(), description="Steps that load no model: begin, gate, weigh, train's launcher, decide, …"
    )
    model: StepPodConfig = Field(
        StepPodConfig(cpu="2", memory="16Gi", scratch="50Gi"),
        description="Steps that load models: prepare, generate, score, evaluate, confirm.",
    )
    each: dict[str, StepPodConfig] = Field(
        {}, description="A step's own, by its name; such as train, where it does not launch a PyTorchJob but trains."
    )


class ResourcesConfig(Section):
    """CPU, memory and disk of a training pod. Memory and disk are requested and limited alike."""

    cpu: Quantity = Field("4", description="CPUs requested.")
    cpu_limit: Quantity | None = Field(None, description="CPU limit; none: whatever the node has free.")
    memory: Quantity = Field("16Gi", description="Memory; `shared_memory` counts towards it.")
    ephemeral_storage: Quantity = Field("60Gi", description="Disk: `scratch`, `tmp` and logs together.")
    shared_memory: Quantity = Field("2Gi", description="Size of /dev/shm, which the ranks of a node talk through.")
    scratch: Quantity = Field("50Gi", description="Size of /scratch: inputs, checkpoints, the finished model.")
    tmp: Quantity = Field("2Gi", description="Size of /tmp.")


class BudgetsConfig(Section):
    """How long the launcher waits for what, in seconds; past it the attempt is ended and named."""

    admission: Seconds = Field(86_400, description="From creation to pods that exist: a queue, a quota.")
    scheduling: Seconds = Field(1_800, description="From a pod's existence to its node.")
    image: Seconds = Field(1_800, description="From the node to a started container.")
    start: Seconds = Field(1_800, description="From started containers to the first optimizer step.")
    silence: Seconds = Field(1_800, description="Between two optimizer steps.")
    running: Seconds = Field(259_200, description="From the first step to the end.")


class PatchConfig(Section):
    """Additions to the manifest, merged as `kubectl patch --type strategic` would."""

    job: dict[str, Any] = Field({}, description="Onto the PyTorchJob.")
    pod: dict[str, Any] = Field({}, description="Onto the pod template of every replica: {metadata: …, spec: …}.")


class TrainJobConfig(Section):
    """The PyTorchJob of a training step."""

    namespace: str | None = Field(
        None, description="Where it is created; none: that of the launcher's pod, or of the kubeconfig's context."
    )
    nodes: int = Field(2, ge=1, description="Pods: one master and nodes - 1 workers.")
    processes_per_node: int | None = Field(
        None, ge=1, description="Ranks in a pod; none: one an accelerator, or one on CPU."
    )
    threads: int = Field(1, ge=1, description="Threads of a rank (OMP_NUM_THREADS).")
    accelerator: AcceleratorConfig = AcceleratorConfig()
    resources: ResourcesConfig = ResourcesConfig()
    service_account: str = Field("steerlm-train", description="Service account of the pods; it needs no rights.")
    user: int | None = Field(
        1000, ge=1, description="Numeric user, group and volume group of the pods; null: the namespace assigns them."
    )
    node_selector: dict[str, str] = Field({}, description="Labels that a node must have.")
    tolerations: list[dict[str, Any]] = Field([], description="Taints that the pods bear.")
    affinity: dict[str, Any] = Field({}, description="Affinity of the pods.")
    spread: Literal["prefer", "require", "off"] = Field(
        "prefer", description="Pods on different hosts; `prefer` puts two on one host rather than none anywhere."
    )
    priority_class: str | None = Field(None, description="Priority class of the pods.")
    queue: str | None = Field(
        None, description="Kueue's LocalQueue. Nobody heeds it without Kueue's integration kubeflow.org/pytorchjob."
    )
    model_cache: dict[str, Any] | None = Field(
        None,
        description="Source of a volume that keeps models between jobs, by digest: {persistentVolumeClaim: {claimName: "
        "…}} that all nodes can mount; none: each pod downloads its own into /scratch.",
    )
    volumes: list[dict[str, Any]] = Field([], description="Further volumes of the pods.")
    volume_mounts: list[dict[str, Any]] = Field([], description="Where the container mounts them.")
    stop_seconds: Seconds = Field(120, description="From SIGTERM to SIGKILL: one step and its checkpoint must fit.")
    active_deadline_seconds: Seconds = Field(604_800, description="The job is ended after this, whatever it does.")
    ttl_seconds_after_finished: int = Field(
        86_400, ge=300, description="A finished job and its pods are deleted after this; the run root keeps the model."
    )
    budgets: BudgetsConfig = BudgetsConfig()
    max_attempts: int = Field(3, ge=1, description="Jobs that all launchers try for one training step before it fails.")
    heartbeat_seconds: Seconds = Field(20, description="How often the launcher says that it watches.")
    orphan_after_seconds: Seconds = Field(
        600, description="An unwatched job writes a checkpoint and ends itself after this."
    )
    patch: PatchConfig = PatchConfig()

    @property
    def processes(self) -> int:
        """Ranks in a pod."""
        return self.processes_per_node or (self.accelerator.count if self.accelerator.name else 1)

    @model_validator(mode="after")
    def _heartbeats_come_in_time(self) -> TrainJobConfig:
        if self.orphan_after_seconds < 3 * self.heartbeat_seconds:
            raise ValueError(
                f"train_job.orphan_after_seconds is {self.orphan_after_seconds}, and a watched job hears from its "
                f"launcher every heartbeat_seconds = {self.heartbeat_seconds}: give it three of them at least"
            )
        return self


class PlatformConfig(Section):
    """A cluster, as its platform team describes it."""

    image: ImageConfig = ImageConfig()
    steps: StepsConfig = StepsConfig()
    train_job: TrainJobConfig = TrainJobConfig()
    object_store: ObjectStoreConfig = ObjectStoreConfig()


def load_platform(path: str | Path) -> PlatformConfig:
    """Read a platform file.

    Raises:
        ConfigError: The file is missing, is no YAML mapping, or does not validate; the message
            lists every mistake with its place, and the nearest known key for an unknown one.
    """
    raw = read_yaml(path, "--platform, or STEERLM_PLATFORM, names the platform file.")
    return validated(PlatformConfig, {} if raw is None else raw, str(path))


def find_platform(path: Path | None) -> PlatformConfig | None:
    """Return the platform in use; None where nobody names one.

    The first of these: a file, what a compiled pipeline gives its steps ($STEERLM_PLATFORM_INLINE), the file of
    $STEERLM_PLATFORM.

    Args:
        path: The file that was asked for.
    """
    text = os.environ.get(INLINE)
    if path is None and text:
        return validated(PlatformConfig, json.loads(text), INLINE)
    file = path or os.environ.get(FILE)
    return load_platform(file) if file else None


def inline(platform: PlatformConfig) -> str:
    """Return what a step needs of a platform as the value of $STEERLM_PLATFORM_INLINE; what was not set stays so.

    The steps' own pods are not part of it: they are what the compiled pipeline says.
    """
    text = json.dumps(platform.model_dump(mode="json", exclude_unset=True, exclude={"steps"}), sort_keys=True)
    return text.replace("$", "\\u0024").replace("{{", "{\\u007b")  # Kubernetes expands $(…), Argo {{…}}
