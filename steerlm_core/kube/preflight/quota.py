"""Whether a job and its pods fit into the quotas of their namespace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from steerlm_core.kube.api.paths import JOB_GROUP
from steerlm_core.kube.preflight.check import Check, State
from steerlm_core.kube.preflight.quota_scope import covers

_WHAT = "room in the quota"
_EACH = ("pods", "count/pods", "services", "count/services")  # the operator makes a service for every pod


def quota_usage(pods: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Return what a job of these pods uses of a quota, under all the names that a quota may count it by."""
    total: Counter[str] = Counter()
    for pod in pods:
        total[f"count/pytorchjobs.{JOB_GROUP}"] = 1
        total.update(_EACH)
        for container in pod["spec"]["containers"]:
            for part in ("requests", "limits"):
                for resource, amount in container.get("resources", {}).get(part, {}).items():
                    value = parse_quantity(amount)
                    total[f"{part}.{resource}"] += value
                    if part == "requests":  # `cpu` in a quota means requests.cpu
                        total[resource] += value
    return total


def check_quotas(quotas: Iterable[Mapping[str, Any]], pods: Sequence[Mapping[str, Any]], namespace: str) -> Check:
    """Compare what a job needs with what is left of each quota that counts its pods.

    Args:
        quotas: ResourceQuotas.
        pods: The job's.
        namespace: Theirs.
    """
    count, tight, unknown = 0, [], []
    for quota in quotas:
        name, covered = quota["metadata"]["name"], [covers(quota, pod) for pod in pods]
        if None in covered:
            unknown.append(name)
        elif any(covered):
            count += 1
            need = quota_usage(pod for pod, counts in zip(pods, covered, strict=True) if counts)
            tight += [(never, name, f"{name}: {words}") for never, words in _tight(quota, need)]
    said = [words for _, _, words in tight]
    said += [f"{name}: whether its scopes hold for these pods cannot be told from here" for name in unknown]
    if tight:
        state = State.FAILED if any(never for never, _, _ in tight) else State.WARNING
        repair = f"kubectl -n {namespace} edit resourcequota {tight[0][1]}   # or ask for less in train_job"
        return Check(_WHAT, state, "; ".join(said), repair)
    if unknown:
        repair = f"kubectl -n {namespace} describe resourcequota {' '.join(unknown)}"
        return Check(_WHAT, State.UNKNOWN, "; ".join(said), repair)
    return Check(_WHAT, State.OK, f"fits {count} quota(s)" if count else "no quota counts these pods")


def _tight(quota: Mapping[str, Any], need: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    """Yield each resource that is short: whether it always is, and in words."""
    used = quota.get("status", {}).get("used", {})
    for resource, hard in quota.get("status", {}).get("hard", {}).items():
        wanted, limit = Decimal(need.get(resource, 0)), parse_quantity(hard)
        left = limit - parse_quantity(used.get(resource, 0))
        if wanted and wanted > left:
            never = wanted > limit
            when = "never fits" if never else "does not fit at present"
            yield never, f"{resource} {wanted:f} {when} (left {left:f} of {limit:f})"
