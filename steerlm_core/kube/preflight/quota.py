"""Whether a job and its pods fit into the quotas of their namespace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from steerlm_core.kube.api.paths import JOB_GROUP
from steerlm_core.kube.preflight.check import Check, State

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
    """Compare what a job needs with what is left of each quota; which pods a scope holds, the API server alone knows.

    Args:
        quotas: ResourceQuotas.
        pods: The job's.
        namespace: Theirs.
    """
    need, count, tight, scoped = quota_usage(pods), 0, [], []
    for quota in quotas:
        name = quota["metadata"]["name"]
        if scopes := list(_scopes(quota)):
            scoped.append((name, f"{name}: counts the pods of {' and '.join(scopes)}, which these may be or not"))
        else:
            count += 1
            tight += [(never, name, f"{name}: {words}") for never, words in _tight(quota, need)]
    said = "; ".join([*(words for _, _, words in tight), *(words for _, words in scoped)])
    if tight:
        state = State.FAILED if any(never for never, _, _ in tight) else State.WARNING
        repair = f"kubectl -n {namespace} edit resourcequota {tight[0][1]}   # or ask for less in train_job"
        return Check(_WHAT, state, said, repair)
    if scoped:
        repair = f"kubectl -n {namespace} describe resourcequota {' '.join(name for name, _ in scoped)}"
        return Check(_WHAT, State.UNKNOWN, said, repair)
    return Check(_WHAT, State.OK, f"fits {count} quota(s)" if count else "no quota counts these pods")


def _scopes(quota: Mapping[str, Any]) -> Iterator[str]:
    """Yield the scopes of a quota, in words."""
    spec = quota.get("spec", {})
    yield from spec.get("scopes", [])
    for each in spec.get("scopeSelector", {}).get("matchExpressions", []):
        yield " ".join([each["scopeName"], each["operator"], *each.get("values", [])])


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
