"""What a launcher says while it watches: each thing once."""

from __future__ import annotations

from collections.abc import Callable

from steerlm_core.kube.job.diagnosis import Symptom
from steerlm_core.kube.job.state import Sight, phase
from steerlm_core.steps.context import Events


class Told:
    """Says everything once."""

    def __init__(self, say: Callable[[str], None], events: Events) -> None:
        """Say it by `say`, and progress to `events`."""
        self._say, self._events = say, events
        self._said: set[str] = set()
        self._outdated = self._phase = ""
        self._step = -1

    def outdated(self, error: str) -> None:
        """Say whether the API server answers."""
        if bool(error) != bool(self._outdated):
            self._say(
                f"the API server does not answer; still trying: {error}" if error else "the API server answers again"
            )
        self._outdated = error

    def sight(self, job: str, sight: Sight, standing: list[Symptom]) -> None:
        """Say what has stood for a while, that training runs, and how far it is."""
        for symptom in standing:
            topic = f"{symptom.kind} {symptom.about}"
            if topic in self._said or symptom.kind in ("silent", "running"):
                continue
            if symptom.seen not in self._said:  # two symptoms may share their words
                self._say(f"job {job}: {symptom.seen}")
            self._said |= {topic, symptom.seen}
        now, progress = phase(sight), sight.progress
        if now != self._phase and now == "running":
            self._say(f"job {job}: training runs")
        self._phase = now
        if progress and progress.step != self._step:
            self._step = progress.step
            self._events.progress(progress.step, progress.steps, "steps")
            self._events.metric(step=float(progress.step), loss=progress.loss)
