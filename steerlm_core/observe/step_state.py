"""A step at work, as far as its events tell: how much is done, how fast, how long it will take."""

from __future__ import annotations

from dataclasses import dataclass

from steerlm_core.observe.events import Event
from steerlm_core.observe.text import duration, rate


@dataclass
class StepState:
    """What a display knows of one step."""

    name: str
    iteration: int | None
    started: float
    shard: int | None = None
    done: int = 0
    total: int = 0
    unit: str = ""
    counted_at: float = 0.0
    _from: tuple[float, int] = (0.0, 0)

    def progress(self, event: Event) -> None:
        """Take over a progress event; a new unit or a falling count starts the estimate anew."""
        done, total, unit = (event.fields[key] for key in ("done", "total", "unit"))
        if unit != self.unit or done < self.done:
            self._from = (event.time, done) if self.unit else (self.started, 0)
        self.done, self.total, self.unit, self.counted_at = done, total, unit, event.time

    @property
    def title(self) -> str:
        """Return `iteration 2 · label · shard 1`, or as much of it as there is."""
        words = [self.name] if self.iteration is None else [f"iteration {self.iteration}", self.name]
        return " · ".join(words if self.shard is None else [*words, f"shard {self.shard}"])

    @property
    def rate(self) -> float:
        """Items a second since the count began; 0 where it is not known yet."""
        begin, before = self._from
        seconds = self.counted_at - begin
        return (self.done - before) / seconds if seconds > 0 else 0.0

    @property
    def text(self) -> str:
        """Return what is done: `64/192 groups · 21.3 groups/s · 6 s left`."""
        if not self.unit:
            return ""
        parts = [f"{self.done}/{self.total} {self.unit}"]
        if self.rate > 0:
            parts += [rate(self.rate, self.unit), f"{duration((self.total - self.done) / self.rate)} left"]
        return " · ".join(parts)
