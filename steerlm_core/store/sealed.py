"""JSON documents that notice when a byte of them has changed: the state of a run is kept in these."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from steerlm_core.config import digest
from steerlm_core.errors import RunStateError

_SEAL = "sha256"


def seal(value: Mapping[str, Any]) -> bytes:
    """Return a document as bytes, with a hash of its content as its last field."""
    plain = json.loads(json.dumps(value))
    return json.dumps({**plain, _SEAL: digest(plain)}, indent=1).encode()


def unseal(data: bytes, where: str) -> dict[str, Any]:
    """Return the document that `seal` made bytes of.

    Args:
        data: The bytes.
        where: Their place, for the message.

    Raises:
        RunStateError: They are not exactly what `seal` returned.
    """
    try:
        value = json.loads(data)
        del value[_SEAL]
        intact = seal(value) == data
    except (ValueError, TypeError, KeyError):
        intact = False
    if not intact:
        raise RunStateError(
            f"{where}: damaged: its bytes are not those that were written. Restore this object from a copy; where "
            "there is none, start a new run."
        )
    return dict(value)
