"""Following a run to its end, with a line for every step that ends, and a word where nothing does for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus

from steerlm_core.errors import KubeflowError
from steerlm_core.kubeflow import runs
from steerlm_core.kubeflow.client import Kubeflow
from steerlm_core.kubeflow.gone import why_gone
from steerlm_core.kubeflow.refusals import said_plainly
from steerlm_core.kubeflow.sight import Looking, Sight
from steerlm_core.kubeflow.steps import BROKEN_OFF, TERMINATED
from steerlm_core.kubeflow.waiting import SILENCE_SECONDS, silence, what_it_waits_for

PATIENCE_SECONDS = 300.0
_SELDOM = 600.0  # seconds between two words about a run that stays silent; the first ones come sooner


def follow(kubeflow: Kubeflow, run_id: str, say: Callable[[str], None]) -> tuple[Sight, str]:
    """Wait until a run has ended, or counts as gone; a break in the connection is waited out.

    Returns:
        How it was last seen, and why it counts as gone; "" where it has ended.

    Raises:
        KubeflowError: There is no such run, or Kubeflow has not answered for some minutes.
    """
    looking = Looking(kubeflow, run_id)
    try:
        with said_plainly(kubeflow.host, kubeflow.authenticated):
            return _Following(kubeflow, run_id, looking, say).to_its_end()
    except KubeflowError as error:
        if getattr(error.__cause__, "status", None) == HTTPStatus.NOT_FOUND:  # it was deleted meanwhile
            raise
        raise KubeflowError(f"{error} The run goes on; follow it again with: {following(run_id)}") from error


def following(run_id: str) -> str:
    """Return the command that follows a run."""
    return f"steerlm kubeflow status {run_id} --wait"


class _Following:
    """What has been said of a run so far."""

    def __init__(self, kubeflow: Kubeflow, run_id: str, looking: Looking, say: Callable[[str], None]) -> None:
        self._kubeflow, self._run_id, self._looking, self._say = kubeflow, run_id, looking, say
        self._said: set[tuple[str, str, str]] = set()
        self._pause = self._next = SILENCE_SECONDS

    def to_its_end(self) -> tuple[Sight, str]:
        while True:
            run = runs.retrying(PATIENCE_SECONDS)(runs.get_run, self._kubeflow, self._run_id)
            sight = self._looking.look(run)
            self._tell(sight)
            if runs.has_ended(run):
                return sight, ""
            if gone := self._tell_of_silence(sight):
                return sight, gone
            time.sleep(runs.POLL_SECONDS)

    def _tell(self, sight: Sight) -> None:
        over = [step for step in sight.steps if step.state in (*runs.ENDED, BROKEN_OFF, TERMINATED)]
        for step in sorted(over, key=lambda step: step.end or step.start):
            if (what := (step.part, step.name, step.state)) not in self._said:
                self._said.add(what)
                self._say(step.line)
        for words in sight.news:
            self._say(words)

    def _tell_of_silence(self, sight: Sight) -> str:
        """Say that nothing happens, at first and then ever more seldom; returns why the run counts as gone."""
        seconds = silence(sight)
        if seconds < self._next:
            if not seconds:
                self._pause = self._next = SILENCE_SECONDS
            return ""
        if gone := why_gone(self._kubeflow, sight.run):
            return gone
        self._say(what_it_waits_for(self._kubeflow, sight, self._kubeflow.link(f"runs/details/{self._run_id}")))
        self._next, self._pause = seconds + self._pause, min(2 * self._pause, _SELDOM)
        return ""
