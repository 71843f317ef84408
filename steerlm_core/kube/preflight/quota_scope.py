"""Which pods a quota counts: those within all of its scopes, as the API server matches them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from steerlm_core.kube.api.client import KubeObject


def covers(quota: Mapping[str, Any], pod: Mapping[str, Any]) -> bool | None:
    """Return whether a quota counts a pod; None where the pod's manifest does not tell."""
    found = [_within(scope, pod["spec"]) for scope in _scopes(quota)]
    if False in found:
        return False
    return None if None in found else True


def _scopes(quota: Mapping[str, Any]) -> Iterator[KubeObject]:
    spec = quota.get("spec", {})
    for name in spec.get("scopes", []):
        yield {"scopeName": name, "operator": "Exists"}
    yield from spec.get("scopeSelector", {}).get("matchExpressions", [])


def _within(scope: KubeObject, pod: KubeObject) -> bool | None:
    match scope["scopeName"]:
        case "Terminating":
            return "activeDeadlineSeconds" in pod  # its own: the job's deadline does not reach the pods
        case "NotTerminating":
            return "activeDeadlineSeconds" not in pod
        case "BestEffort":
            return False if _asks(pod) else None
        case "NotBestEffort":
            return True if _asks(pod) else None
        case "PriorityClass":
            return _of_class(scope, pod.get("priorityClassName"))
        case "CrossNamespacePodAffinity":
            return None if pod.get("affinity") else False
    return None


def _asks(pod: KubeObject) -> bool:
    """Whether a container asks for CPU or memory; where none does, the operator or a limit range may for it."""
    resources = [container.get("resources", {}) for container in pod["containers"]]
    asked = [{**each.get("requests", {}), **each.get("limits", {})} for each in resources]
    return any("cpu" in amounts or "memory" in amounts for amounts in asked)


def _of_class(scope: KubeObject, name: str | None) -> bool | None:
    if not name:
        return None  # the cluster's default class, if it has one, comes with admission
    match scope["operator"]:
        case "In":
            return name in scope["values"]
        case "NotIn":
            return name not in scope["values"]
    return bool(scope["operator"] == "Exists")
