"""What a run root holds, read for people: status, summary, report and inspect show this one picture.

Reads only what is committed, names its files instead of listing folders, and loads no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from steerlm_core import layout
from steerlm_core.errors import RunStateError
from steerlm_core.observe.event_store import read_events
from steerlm_core.run import Run
from steerlm_core.store.contents import read_contents
from steerlm_core.store.gc import at_work
from steerlm_core.store.manifest import Manifest


@dataclass(frozen=True)
class IterationView:
    """One iteration: the steps that are done, and what came out."""

    number: int
    steps_done: list[str]
    evaluation: dict[str, Any] | None
    commit: dict[str, Any] | None

    @property
    def fields(self) -> dict[str, Any]:
        """Evaluation and commit, merged, as an iteration event has them."""
        return {**(self.evaluation or {}), **(self.commit or {})}


class RunView:
    """A run root as it stands now."""

    def __init__(self, run: Run) -> None:
        """Name the run; nothing is read yet."""
        self.root, self.store = run.root, run.store
        self.run_id, self.config, self.described = run.run_id, run.config, run.described

    @property
    def prepared(self) -> bool:
        """Whether prepare has finished."""
        return self.store.exists(layout.manifest(layout.PROMPTS))

    @cached_property
    def iterations(self) -> list[IterationView]:
        """The iterations that have begun, in order."""
        found: list[IterationView] = []
        while (view := self._iteration(len(found))).steps_done:
            found.append(view)
        return found

    @property
    def committed(self) -> list[IterationView]:
        """The iterations that have ended."""
        return [view for view in self.iterations if view.commit]

    @property
    def decision(self) -> dict[str, Any] | None:
        """Why the loop has stopped; None while it has not."""
        return self.store.document(layout.DECISION) if self.store.exists(layout.DECISION) else None

    @property
    def how_to_go_on(self) -> str:
        """The command that goes on with the run; empty where there is nothing left to do."""
        if self.decision:
            return "" if self.confirmation else f"steerlm resume {self.root}"
        count = len(self.committed)
        more = f" --max-iterations {count + 1}" if count >= self.config.max_iterations else ""
        return f"steerlm resume {self.root}{more}"

    @property
    def best(self) -> int | None:
        """The best accepted iteration; None: policy 0."""
        best = self.committed[-1].fields["best_iteration"] if self.committed else None
        return None if best is None else int(best)

    @property
    def confirmation(self) -> dict[str, Any] | None:
        """Confirmation of the best policy; None before it."""
        key = layout.confirmation_document(layout.confirmation(self.best))
        return self.store.document(key) if self.store.exists(key) else None

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """What all writers said, in the order of its time."""
        return read_events(self.store)

    @property
    def warnings(self) -> list[tuple[int | None, str, str]]:
        """What steps warned of: iteration, where in words, and the message; repetitions are left out."""
        said = [
            (event.get("iteration"), _place(event), str(event["fields"]["message"]))
            for event in self.events
            if event["kind"] == "warning"
        ]
        return list(dict.fromkeys(said))

    @cached_property
    def seconds(self) -> dict[tuple[int | None, str], float]:
        """Seconds of every step that has finished, by iteration and step; done again, they add up."""
        total: dict[tuple[int | None, str], float] = {}
        for event in self.events:
            if event["kind"] in ("finished", "failed"):
                key = (event.get("iteration"), str(event["step"]))
                total[key] = total.get(key, 0.0) + float(event["fields"]["seconds"])
        return total

    @property
    def at_work(self) -> list[str]:
        """Who holds a lease of the run at present, and for what."""
        return at_work(self.store)

    @cached_property
    def bytes_stored(self) -> int:
        """Bytes of all parts that the run consists of."""
        return sum(part.size for part in read_contents(self.store).parts())

    def policy_folder(self, iteration: int | None) -> Path:
        """Return the folder of an iteration's trained model; None: policy 0. Every file is verified.

        Raises:
            RunStateError: That model does not exist.
        """
        prefix = layout.policy_model(iteration)
        if not self.store.exists(layout.manifest(prefix)):
            done = ", ".join(
                [layout.POLICY_0, *(str(view.number) for view in self.iterations if "train" in view.steps_done)]
            )
            raise RunStateError(
                f"{self.root}/{prefix}: no such model. This run has: {done if self.prepared else 'none yet'}."
            )
        return self.store.local_folder(self.manifest(prefix))

    def manifest(self, prefix: str) -> Manifest:
        """Read the manifest of an output.

        Raises:
            RunStateError: It is missing or damaged.
        """
        key = layout.manifest(prefix)
        try:
            return Manifest.model_validate(self.store.document(key))
        except ValidationError as error:
            raise RunStateError(f"{self.root}/{key}: not a manifest of this version.") from error

    def _iteration(self, number: int) -> IterationView:
        written = {step.name: step.writes(number) for step in layout.ITERATION_STEPS.values()}
        done = [step for step, key in written.items() if self.store.exists(key)]

        def read(step: str) -> dict[str, Any] | None:
            return self.store.document(written[step]) if step in done else None

        return IterationView(number, done, read("evaluate"), read("decide"))


def _place(event: Mapping[str, Any]) -> str:
    step, iteration = str(event.get("step") or ""), event.get("iteration")
    return step if iteration is None else f"iteration {iteration} · {step}"
