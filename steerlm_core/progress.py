"""How long work says how far it is: a callback that every part may be given, and none needs."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called with (items done, items of all, unit), as often as the work likes: who listens leaves most calls out."""

Tell = Callable[[int, int], None]
"""The same of work that is a part of something larger, whose unit only the caller knows."""


def unheard(done: int, total: int, unit: str = "") -> None:
    """Nobody listens."""
