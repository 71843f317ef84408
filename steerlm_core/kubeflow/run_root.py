"""The root of a run, where it can be read from here: what its steps say of themselves, which Kubeflow's list may not.

Kubeflow's list of tasks ends for good once the Workflow is larger than 1 MiB; what the steps write into the root goes
on. The root is that of the run's arguments, and may have had runs before: what they said is older than this run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from steerlm_core.errors import RunStateError, SteerLMError
from steerlm_core.kubeflow.runs import parameters
from steerlm_core.kubeflow.steps import Step, together
from steerlm_core.layout import RUN
from steerlm_core.observe.events import Event
from steerlm_core.observe.live import LiveEvents
from steerlm_core.observe.step_state import StepState
from steerlm_core.observe.text import iteration_line
from steerlm_core.retrain.running import root_of_job
from steerlm_core.store import absolute_root, open_store
from steerlm_core.store.run_store import RunStore

WITHOUT_EVENTS = ("begin", "gate", "finish", "report")  # steps that say nothing in the root
_STATES = {"started": "RUNNING", "finished": "SUCCEEDED", "failed": "FAILED"}
_ATTEMPTS = 1  # who asks again in a moment does not wait for a store


@dataclass
class _Shard:
    """What a step, or a shard of one, has said."""

    progress: StepState
    state: str
    start: datetime
    end: datetime | None = None
    error: str = ""


class RunRoot:
    """What a run's root tells.

    Attributes:
        unreadable: Why it cannot be read from here; "" while it can.
    """

    def __init__(self, run: Any) -> None:
        """Name the run; its root is looked for when it is first looked at."""
        self.unreadable = ""
        self._run = run
        self._events: LiveEvents | None = None
        self._shards: dict[tuple[str, str], dict[int | None, _Shard]] = {}

    @property
    def heard(self) -> bool:
        """Whether any of the run's steps has said something."""
        return bool(self._shards)

    def look(self) -> list[str]:
        """Read what is new; returns what of it is to be told besides the steps: warnings, and how iterations went."""
        try:
            if self._events is None and not self.unreadable:
                self._open()
            new = self._events.new() if self._events else []
        except (SteerLMError, OSError) as error:
            self.unreadable = self.unreadable or ("" if self._events else str(error))
            return []
        since = self._run.created_at.timestamp()
        return [words for event in new if event.time >= since for words in self._take(event)]

    def steps(self, shards: int) -> list[Step]:
        """Return the steps that have begun, in the order in which they did.

        Args:
            shards: How many shards a step has that is split.
        """
        found = [self._step(*where, shards) for where in self._shards]
        return sorted(found, key=lambda step: step.start)

    def at_work(self) -> list[str]:
        """Return the steps at work, with what they have done."""
        every = [(where, shard) for where, shards in self._shards.items() for shard in shards.values()]
        return [_at_work(*where, shard.progress) for where, shard in every if shard.state == "RUNNING"]

    def error_of(self, part: str, name: str) -> str:
        """Return what a step failed with; "" where it has not said so."""
        shards = self._shards.get((part, name), {}).values()
        return next((shard.error for shard in shards if shard.state == "FAILED"), "")

    def _open(self) -> None:
        """Open the root, once there is a run in it."""
        store = store_of(self._run)
        if store.exists(RUN):
            self._events = LiveEvents(store)

    def _take(self, event: Event) -> Iterable[str]:
        part = "" if event.iteration is None else f"iteration-{event.iteration}"
        where, when = (part, event.step.replace("_", "-")), datetime.fromtimestamp(event.time, UTC)
        shards = self._shards.get(where, {})
        if event.kind == "started":
            progress = StepState(event.step, event.iteration, event.time, event.shard)
            self._shards.setdefault(where, {})[event.shard] = _Shard(progress, "RUNNING", when)
        elif event.kind in _STATES and event.shard in shards:
            shard = shards[event.shard]
            shard.state, shard.end, shard.error = _STATES[event.kind], when, str(event.fields.get("error", ""))
        elif event.kind == "progress" and event.shard in shards:
            shards[event.shard].progress.progress(event)
        elif event.kind == "warning":
            yield f"{' '.join(word for word in where if word)}: warning: {event.fields['message']}"
        elif event.kind == "iteration":
            yield iteration_line(event.iteration or 0, event.fields)

    def _step(self, part: str, name: str, shards: int) -> Step:
        own = self._shards[part, name]
        split = set(own) != {None}
        whole = [other for (of, _), other in self._shards.items() if of == part and None in other]
        over = any(other[None].start >= shard.start for other in whole for shard in own.values())
        count = len(own) if over or not split else max(shards, len(own))
        return together(part, name, [(shard.state, shard.start, shard.end) for shard in own.values()], count)


def store_of(run: Any) -> RunStore:
    """Open the root of a run; nothing is read where the run was given it.

    Raises:
        SteerLMError: The run was given no root, or a base root that cannot be read.
    """
    root, base_root = (parameters(run).get(name) for name in ("root", "base_root"))
    if root:
        return open_store(root, _ATTEMPTS)
    if not base_root:
        raise RunStateError(f"run {run.run_id}: was given neither root nor base_root.")
    return open_store(root_of_job(open_store(absolute_root(base_root), _ATTEMPTS), run.run_id), _ATTEMPTS)


def _at_work(part: str, name: str, step: StepState) -> str:
    title = f"{part} {name}".strip() + ("" if step.shard is None else f", shard {step.shard}")
    return f"{title} ({step.text})" if step.text else title
