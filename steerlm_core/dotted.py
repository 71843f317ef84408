"""Settings by their dotted names, as people compare and search them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def dotted(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting of a nested configuration: `train.epochs`, 2."""
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from dotted(each, f"{path}.{key}".lstrip("."))
    else:
        yield path, value


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings that differ."""
    a, b = dict(dotted(one)), dict(dotted(other))
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
