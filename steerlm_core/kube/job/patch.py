"""Strategic merge patches, as the API server applies them to pods, for a manifest that it does not know the type of.

Mappings are merged, null removes a key, lists of named things are merged by name, other lists are replaced.
`$patch: delete` removes the mapping or the item that it stands in, `$patch: replace` takes it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steerlm_core.errors import ConfigError

_DIRECTIVE, _DELETE, _REPLACE = "$patch", "delete", "replace"

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


def apply_patch(base: Mapping[str, Any], patch: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return `base` with a patch applied; neither is changed.

    Args:
        base: A mapping of the manifest.
        patch: The additions.
        where: Where the patch was written, for messages.

    Raises:
        ConfigError: The patch puts a mapping or a list where the manifest has something else, an item of a
            merged list lacks the key that names it, or a directive is not one of the two.
    """
    _check_directives(patch, where)
    if patch.get(_DIRECTIVE) == _DELETE:
        raise ConfigError(f"{where}: `{_DIRECTIVE}: {_DELETE}` here would leave nothing of the manifest.")
    merged = {} if patch.get(_DIRECTIVE) == _REPLACE else dict(base)
    for key, value in patch.items():
        if value is None or _deletes(value):
            merged.pop(key, None)
        elif key != _DIRECTIVE:
            merged[key] = _merged(key, merged.get(key), value, f"{where}.{key}")
    return merged


def _merged(key: str, old: Any, new: Any, where: str) -> Any:
    if old is not None and _shape(old) != _shape(new):
        raise ConfigError(f"{where}: {_shape(new)} {new!r}, where the manifest has {_shape(old)}.")
    if isinstance(new, Mapping):
        return apply_patch(old or {}, new, where)
    if isinstance(new, list) and key in _MERGE_KEYS:
        return _merge_lists(old or [], new, _MERGE_KEYS[key], where)
    _check_literal(new, where)
    return new


def _merge_lists(old: list[Any], new: list[Any], key: str, where: str) -> list[Any]:
    for item in new:
        if not isinstance(item, Mapping) or key not in item:
            raise ConfigError(f"{where}: an item needs `{key}`, by which it is merged; found {item!r}.")
    patches = {item[key]: item for item in new}
    kept = [item for item in old if not _deletes(patches.get(item[key]))]
    known = {item[key] for item in old}
    merged = [apply_patch(item, patches.get(item[key], {}), f"{where}[{item[key]}]") for item in kept]
    added = [item for item in new if item[key] not in known and not _deletes(item)]
    return merged + [apply_patch({}, item, f"{where}[{item[key]}]") for item in added]


def _deletes(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get(_DIRECTIVE) == _DELETE


def _check_literal(value: Any, where: str) -> None:
    """Refuse directives in what is taken as it is."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if str(key).startswith("$"):
                raise _unknown(key, inner, where)
            _check_literal(inner, f"{where}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_literal(inner, f"{where}[{index}]")


def _check_directives(patch: Mapping[str, Any], where: str) -> None:
    for key, value in patch.items():
        if str(key).startswith("$") and not (key == _DIRECTIVE and value in (_DELETE, _REPLACE)):
            raise _unknown(key, value, where)


def _unknown(key: str, value: Any, where: str) -> ConfigError:
    return ConfigError(
        f"{where}: `{key}: {value}` is no directive that is known here. `{_DIRECTIVE}: {_DELETE}` and `{_DIRECTIVE}: "
        f"{_REPLACE}` are, in a mapping or in an item of a list that is merged by name; null removes a key too."
    )


def _shape(value: Any) -> str:
    return "a mapping" if isinstance(value, Mapping) else "a list" if isinstance(value, list) else "a value"
