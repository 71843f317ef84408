"""A namespace as a platform team would set it up: `restricted`, two service accounts, a Secret, and our Role alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from steerlm_core.kube.job.permissions import NEEDED, OF_WORKFLOWS, WANTED, Permission
from tests.cluster.kit import IMAGE, KUBECONFIG, kubectl

LAUNCHER = "steerlm-launcher"
SECRET = "steerlm-object-store"
KINDS = "pods,services,configmaps,events,pytorchjobs,serviceaccounts,roles,rolebindings"  # all but Secrets
EVERYTHING = (*NEEDED, *WANTED, *OF_WORKFLOWS)


class Place:
    """A namespace, and the way in that a launcher has."""

    def __init__(self, name: str, folder: Path, endpoint: str, keys: dict[str, str]) -> None:
        """Create it.

        Args:
            name: Of the namespace.
            folder: For the files that a launcher is given.
            endpoint: Of the object store.
            keys: Of the object store, as the Secret holds them.
        """
        self.name, self.folder, self.endpoint, self._keys = name, folder, endpoint, keys
        level = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": level}})
        self.apply(self._object("v1", "Secret", SECRET, stringData=keys))
        self.apply(self._object("v1", "ServiceAccount", "steerlm-train", automountServiceAccountToken=False))
        self.apply(self._object("v1", "ServiceAccount", LAUNCHER))
        self.allow(EVERYTHING)

    def apply(self, manifest: object) -> None:
        """Apply a manifest."""
        kubectl("apply", "-f", "-", manifest=manifest)

    def allow(self, permissions: Sequence[Permission]) -> None:
        """Let the launcher do this, and nothing else."""
        rules = [
            {
                "apiGroups": [p.group],
                "resources": ["/".join(filter(None, (p.resource, p.subresource)))],
                "verbs": [p.verb],
            }
            for p in permissions
        ]
        self.apply(self._object("rbac.authorization.k8s.io/v1", "Role", LAUNCHER, rules=rules))
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": LAUNCHER}
        subjects = [{"kind": "ServiceAccount", "name": LAUNCHER, "namespace": self.name}]
        binding = self._object("rbac.authorization.k8s.io/v1", "RoleBinding", LAUNCHER)
        self.apply(binding | {"roleRef": reference, "subjects": subjects})

    def tells_no_credential(self, texts: Iterable[str]) -> None:
        """See that no key stands in these, nor in anything of this namespace that the API server returns."""
        for text in (kubectl("-n", self.name, "get", KINDS, "-o", "json"), *texts):
            for key in self._keys.values():
                assert key not in text, text

    def kubeconfig(self) -> Path:
        """Write a kubeconfig with the launcher's own token."""
        admin = json.loads(KUBECONFIG.read_text())
        token = kubectl("-n", self.name, "create", "token", LAUNCHER, "--duration", "2h").strip()
        context = {"cluster": "kit", "user": LAUNCHER, "namespace": self.name}
        path = self.folder / f"kubeconfig-{self.name}"
        path.write_text(json.dumps({
            **admin,
            "users": [{"name": LAUNCHER, "user": {"token": token}}],
            "contexts": [{"name": "kit", "context": context}],
        }))  # fmt: skip
        path.chmod(0o600)
        return path

    def platform(self, name: str, endpoint: str = "", image: str = IMAGE, **train_job: Any) -> Path:
        """Write a platform file; `train_job` lies over what is good for a tiny model on two cores.

        With an empty image the pods take that of their launcher.
        """
        tiny = {"cpu": "100m", "memory": "1Gi", "ephemeral_storage": "1Gi", "shared_memory": "64Mi", "scratch": "500Mi",
                "tmp": "100Mi"}  # fmt: skip
        budgets = {"admission": 60, "scheduling": 60, "image": 120, "start": 180, "silence": 120, "running": 900}
        job = {
            "heartbeat_seconds": 2,
            "orphan_after_seconds": 120,
            "stop_seconds": 20,
            **train_job,
            "resources": tiny | train_job.get("resources", {}),
            "budgets": budgets | train_job.get("budgets", {}),
        }
        path = self.folder / f"platform-{name}.yaml"
        path.write_text(yaml.safe_dump({
            "image": {"name": image or None},
            "train_job": job,
            "object_store": {"endpoint": endpoint or self.endpoint, "path_style": True},
        }))  # fmt: skip
        return path

    def _object(self, version: str, kind: str, name: str, **fields: Any) -> dict[str, Any]:
        return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": self.name}, **fields}
