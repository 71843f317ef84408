"""The training operator as it is set up: whether it runs, and the init container that it gives to workers.

A dry run of a PyTorchJob makes no pods; to try its pods one must know what the operator adds to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from steerlm_core.kube.api.client import ForbiddenError, KubeApi, Object

NAMESPACE = "kubeflow"
_DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/training-operator"
_IMAGE_OPTION = "--pytorch-init-container-image="
_STOCK_IMAGE = "alpine:3.10"
_CONFIG_FOLDER, _CONFIG_KEY = "/etc/config", "initContainer.yaml"

# What the operator adds where it is not told otherwise (1.9), as far as admission looks at it.
_STOCK = """
- name: init-pytorch
  image: {{.InitContainerImage}}
  imagePullPolicy: IfNotPresent
  resources:
    limits: {cpu: 100m, memory: 20Mi}
    requests: {cpu: 50m, memory: 10Mi}
  command: [sh, -c, "nslookup {{.MasterAddr}}"]
"""


@dataclass(frozen=True)
class Operator:
    """What can be seen of it.

    Attributes:
        image: Its image; empty where it is not to be seen.
        ready: Whether a pod of it is ready.
        init_template: Template of the workers' init containers.
        init_image: Their image.
        known: Whether the template was read, and not assumed.
    """

    image: str = ""
    ready: bool = False
    init_template: str = _STOCK
    init_image: str = _STOCK_IMAGE
    known: bool = False

    def init_containers(self, master: str) -> list[dict[str, Any]]:
        """Return the init containers of a worker that waits for the pod `master`."""
        values = {"InitContainerImage": self.init_image, "MasterAddr": master, "MaxTries": "100"}
        text = self.init_template
        for name, value in values.items():
            text = text.replace(f"{{{{.{name}}}}}", value)
        return list(yaml.safe_load(text))


def find_operator(api: KubeApi) -> Operator | None:
    """Return the operator of the cluster; None where there is none in its usual place.

    Raises:
        ForbiddenError: This account may not look.
    """
    deployment = api.get(_DEPLOYMENT)
    if deployment is None:
        return None
    pod = deployment["spec"]["template"]["spec"]
    container = pod["containers"][0]
    options = [*container.get("command", []), *container.get("args", [])]
    images = [option.removeprefix(_IMAGE_OPTION) for option in options if option.startswith(_IMAGE_OPTION)]
    template, known = _template(api, pod, container)
    return Operator(
        image=container["image"],
        ready=bool(deployment.get("status", {}).get("readyReplicas")),
        init_template=template,
        init_image=images[-1] if images else _STOCK_IMAGE,
        known=known,
    )


def _template(api: KubeApi, pod: Object, container: Object) -> tuple[str, bool]:
    """Return the template that the operator reads, and whether it is surely that."""
    mounted = [each["name"] for each in container.get("volumeMounts", []) if each["mountPath"] == _CONFIG_FOLDER]
    maps = [each["configMap"]["name"] for each in pod.get("volumes", []) if each["name"] in mounted]
    if not maps:
        return _STOCK, True
    try:
        found = api.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/{maps[0]}")
    except ForbiddenError:
        return _STOCK, False
    return (found or {}).get("data", {}).get(_CONFIG_KEY, _STOCK), True
