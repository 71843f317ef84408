"""One thing that is wrong with a job, and for how long it has been: when waiting ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Symptom:
    """One thing that is not, or not yet, as it should be.

    Attributes:
        kind: Its class.
        about: What it is about; the clock starts anew when this changes.
        seen: What was seen, in words.
        patience: Seconds that it may stand.
        pod: The pod whose log tells more; empty: the master's.
    """

    kind: str
    about: str
    seen: str
    patience: float = 0.0
    pod: str = ""


class Patience:
    """Remembers how long each symptom has stood."""

    def __init__(self) -> None:
        """Nothing has been seen."""
        self._since: dict[str, float] = {}

    def exhausted(self, symptoms: Sequence[Symptom], now: float) -> Symptom | None:
        """Return the first symptom that has stood for its patience; what is not given any more is forgotten."""
        self._since = {s.about: self._since.get(s.about, now) for s in symptoms}
        return next((s for s in symptoms if now - self._since[s.about] >= s.patience), None)

    def standing(self, symptoms: Sequence[Symptom], now: float, seconds: float) -> list[Symptom]:
        """Return the symptoms that have stood for so long."""
        return [s for s in symptoms if now - self._since[s.about] >= seconds]
