"""Settings by their dotted names, as people compare and search them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def dotted(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting of a nested configuration: `train.epochs`, 2."""
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from dotted(each, f"{path}.{key}".lstrip("."))
    else:
        yield path, value
