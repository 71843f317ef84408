"""Whether NetworkPolicies let one pod reach another: what a network plugin that enforces them would do.

A pod that no policy selects may be reached by all, and reach all; one that is selected for a direction only by whom
some rule of some policy names. Traffic passes where both ends let it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Policy = Mapping[str, Any]


@dataclass(frozen=True)
class End:
    """One end of a connection: a pod, or an address outside of the cluster.

    Attributes:
        namespace: Of the pod; empty: no pod.
        labels: Of the pod.
        address: Of what is no pod.
        ports: Named ports of the pod.
    """

    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)


def passes(policies: Sequence[Policy], source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """Whether traffic passes.

    Args:
        policies: All NetworkPolicies of the cluster.
        source: Who connects.
        target: To whom.
        port: Of the target's pod, behind any service.
        protocol: TCP or UDP.
    """
    return _lets(policies, "Egress", source, target, target, port, protocol) and _lets(
        policies, "Ingress", target, source, target, port, protocol
    )


def _lets(
    policies: Sequence[Policy], direction: str, own: End, other: End, target: End, port: int, protocol: str
) -> bool:
    selecting = [policy for policy in policies if _selects(policy, direction, own)]
    if not selecting:
        return True
    key, peers = direction.lower(), {"Egress": "to", "Ingress": "from"}[direction]
    return any(
        _names(rule.get(peers), policy["metadata"]["namespace"], other)
        and _port(rule.get("ports"), target, port, protocol)
        for policy in selecting
        for rule in policy["spec"].get(key) or []
    )


def _selects(policy: Policy, direction: str, end: End) -> bool:
    spec = policy["spec"]
    if not end.namespace or policy["metadata"]["namespace"] != end.namespace:
        return False
    return direction in spec["policyTypes"] and _matches(spec["podSelector"], end.labels)


def _names(peers: Sequence[Mapping[str, Any]] | None, namespace: str, end: End) -> bool:
    return not peers or any(_is_peer(peer, namespace, end) for peer in peers)


def _is_peer(peer: Mapping[str, Any], namespace: str, end: End) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        outside = any(_within(end.address, cidr) for cidr in block.get("except", []))
        return not end.namespace and _within(end.address, block["cidr"]) and not outside
    if not end.namespace:
        return False
    here = {"kubernetes.io/metadata.name": end.namespace}  # the label that every namespace has
    in_namespace = (
        _matches(peer["namespaceSelector"], here) if "namespaceSelector" in peer else end.namespace == namespace
    )
    return in_namespace and _matches(peer.get("podSelector", {}), end.labels)


def _within(address: str, cidr: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(cidr)


def _port(ports: Sequence[Mapping[str, Any]] | None, target: End, port: int, protocol: str) -> bool:
    if not ports:
        return True
    return any(
        entry.get("protocol", "TCP") == protocol
        and ("port" not in entry or target.ports.get(entry["port"], entry["port"]) == port)
        for entry in ports
    )


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, f"the evaluator knows matchLabels only: {selector}"
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
