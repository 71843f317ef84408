"""Strategic merge patches, as the API server applies them to pods, for a manifest that it does not know the type of.

Mappings are merged, null removes a key, lists of named things are merged by name, other lists are
replaced. `$patch: delete` removes an item, `$patch: replace` takes the patch as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steerlm_core.errors import ConfigError

_DIRECTIVE = "$patch"

# patchMergeKey of the lists in PodSpec and Container (Kubernetes API reference). Tolerations have none.
_MERGE_KEYS = {
    "containers": "name",
    "env": "name",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ports": "containerPort",
    "resourceClaims": "name",
    "topologySpreadConstraints": "topologyKey",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "volumes": "name",
}


def merge(base: Mapping[str, Any], patch: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return `base` with a patch applied; neither is changed.

    Args:
        base: A mapping of the manifest.
        patch: The additions.
        where: Where the patch was written, for messages.

    Raises:
        ConfigError: The patch puts a mapping or a list where the manifest has something else, or an item
            of a merged list lacks the key that names it.
    """
    if patch.get(_DIRECTIVE) == "replace":
        return _plain(patch)
    merged = dict(base)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(key, base.get(key), value, f"{where}.{key}")
    return merged


def _merged(key: str, old: Any, new: Any, where: str) -> Any:
    if old is not None and _shape(old) != _shape(new):
        raise ConfigError(f"{where}: {_shape(new)} {new!r}, where the manifest has {_shape(old)}.")
    if isinstance(new, Mapping):
        return merge(old or {}, new, where)
    if isinstance(new, list) and key in _MERGE_KEYS:
        return _merge_lists(old or [], new, _MERGE_KEYS[key], where)
    return new


def _merge_lists(old: list[Any], new: list[Any], key: str, where: str) -> list[Any]:
    for item in new:
        if not isinstance(item, Mapping) or key not in item:
            raise ConfigError(f"{where}: an item needs `{key}`, by which it is merged; found {item!r}.")
    patches = {item[key]: item for item in new}
    kept = [item for item in old if patches.get(item[key], {}).get(_DIRECTIVE) != "delete"]
    known = {item[key] for item in old}
    merged = [merge(item, patches.get(item[key], {}), f"{where}[{item[key]}]") for item in kept]
    added = [_plain(item) for item in new if item[key] not in known and item.get(_DIRECTIVE) != "delete"]
    return merged + added


def _plain(patch: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in patch.items() if key != _DIRECTIVE and value is not None}


def _shape(value: Any) -> str:
    return "a mapping" if isinstance(value, Mapping) else "a list" if isinstance(value, list) else "a value"
