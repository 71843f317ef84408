"""Whether the pods of a job fit into the quotas of their namespace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from steerlm_core.kube.check import Check, State

_WHAT = "room in the quota"


def needs(pods: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Return what pods use of a quota, under all the names that a quota may count it by."""
    total: Counter[str] = Counter()
    for pod in pods:
        total["pods"] += 1
        total["count/pods"] += 1
        for container in pod["spec"]["containers"]:
            for part, amounts in container.get("resources", {}).items():
                for resource, amount in amounts.items():
                    value = parse_quantity(amount)
                    total[f"{part}.{resource}"] += value
                    if part == "requests":  # `cpu` in a quota means requests.cpu
                        total[resource] += value
    return total


def room(quotas: Iterable[Mapping[str, Any]], need: Mapping[str, Any], namespace: str) -> Check:
    """Compare what is needed with what is left.

    Args:
        quotas: ResourceQuotas.
        need: As `needs` returns.
        namespace: Theirs.
    """
    count, tight = 0, []
    for quota in quotas:
        count += 1
        used = quota.get("status", {}).get("used", {})
        for resource, hard in quota.get("status", {}).get("hard", {}).items():
            wanted, limit = Decimal(need.get(resource, 0)), parse_quantity(hard)
            left = limit - parse_quantity(used.get(resource, 0))
            if wanted and wanted > left:
                name = quota["metadata"]["name"]
                when = "never fits" if wanted > limit else "does not fit at present"
                tight.append(
                    (wanted > limit, name, f"{name}: {resource} {wanted:f} {when} (left {left:f} of {limit:f})")
                )
    if not tight:
        return Check(_WHAT, State.OK, f"fits {count} quota(s)" if count else "no quota")
    never = any(forever for forever, _, _ in tight)
    repair = f"kubectl -n {namespace} edit resourcequota {tight[0][1]}"
    found = "; ".join(words for _, _, words in tight)
    return Check(_WHAT, State.FAILED if never else State.WARNING, found, f"{repair}   # or ask for less in train_job")
