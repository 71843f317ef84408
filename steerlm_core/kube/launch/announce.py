"""What a launcher says while it watches: each thing once."""

from __future__ import annotations

from collections.abc import Callable

from steerlm_core.kube.job.diagnosis import Finding
from steerlm_core.kube.job.state import JobState, phase
from steerlm_core.steps.context import Events


class Announcer:
    """Says everything once."""

    def __init__(self, say: Callable[[str], None], events: Events) -> None:
        """Say it by `say`, and progress to `events`."""
        self._say, self._events = say, events
        self._said: set[str] = set()
        self._api_error = self._phase = ""
        self._step = -1

    def api_server(self, error: str) -> None:
        """Say whether the API server answers."""
        if bool(error) != bool(self._api_error):
            self._say(
                f"the API server does not answer; still trying: {error}" if error else "the API server answers again"
            )
        self._api_error = error

    def job(self, job: str, observed: JobState, lasting: list[Finding]) -> None:
        """Say what has stood for a while, that training runs, and how far it is."""
        for finding in lasting:
            topic = f"{finding.kind} {finding.about}"
            if topic in self._said or finding.kind in ("silent", "running"):
                continue
            if finding.seen not in self._said:  # two findings may share their words
                self._say(f"job {job}: {finding.seen}")
            self._said |= {topic, finding.seen}
        now, progress = phase(observed), observed.progress
        if now != self._phase and now == "running":
            self._say(f"job {job}: training runs")
        self._phase = now
        if progress and progress.step != self._step:
            self._step = progress.step
            self._events.progress(progress.step, progress.steps, "steps")
            self._events.metric(step=float(progress.step), loss=progress.loss)
