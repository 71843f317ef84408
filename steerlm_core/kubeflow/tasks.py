"""The nodes of a run's Workflow, put back in their places from the list that Kubeflow makes of them.

Kubeflow lists a node by the last part of its name alone: a step is there as `weigh`, as `weigh(0)`, its attempt, and
with its pods as `executor`, `executor(0)`, `weigh-driver` and `weigh-driver(0)`, in every iteration and every shard. It
gives neither a node's id nor its parent, but the ids of the nodes below and after it. An id is made of the Workflow's
name and a hash of the node's full name, so the full names are found by trying which of all that can be are listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_ATTEMPT = re.compile(r"\(\d+\)$")
_TURN = re.compile(r"\(\d+:.*\)$")  # of a loop: its number and its item
_FIRST_YEAR = 2000  # Kubeflow writes a time that is not yet as one in the year 1 or 1970
_FNV_START, _FNV_PRIME, _32_BITS = 0x811C9DC5, 0x01000193, 0xFFFFFFFF


@dataclass(frozen=True)
class Task:
    """A node of the Workflow that Argo may try again: a step, a driver, a pod or what holds them together.

    Attributes:
        names: Names of the nodes that it stands in, from the outermost, and its own.
        state: RUNNING, SUCCEEDED, FAILED, SKIPPED, …; empty where it was left out, or waits for a Retry.
        start: When it began.
        end: When it ended; None while it has not.
        turns: Turns of the loop that it stands in; 1 outside of one.
        attempts: Full names of its attempts.
    """

    names: tuple[str, ...]
    state: str
    start: datetime
    end: datetime | None
    turns: int
    attempts: tuple[str, ...]

    def pods(self, template: str) -> list[str]:
        """Return the names of the pods of its attempts, the last first.

        Args:
            template: What the pods are made from.
        """
        return [f"{_workflow(node)}-{template}-{_hash(node)}" for node in reversed(self.attempts)]


def tasks_of(run: Any) -> list[Task]:
    """Return what Kubeflow lists of a run, in the order in which it began."""
    listed, ids, workflow = _listed(run), _ids(run), workflow_of(run)
    if workflow is None:
        return []
    attempts = _attempts(workflow, ids, {task.display_name for task in listed})
    turns = _turns(attempts)
    records = {
        (task.display_name, child.pod_name): task
        for task in listed for child in task.child_tasks or [] if child.pod_name and _time(task.start_time)
    }  # fmt: skip
    found = [
        Task(names, record.state or "", record.start_time, _time(record.end_time), _turns_around(names, turns), tried)
        for names, tried in attempts.items() if (record := _record(names, tried, records))
    ]  # fmt: skip
    return sorted(found, key=lambda task: (task.start, task.names))


def workflow_of(run: Any) -> str | None:
    """Return the name of a run's Workflow; None while Kubeflow lists nothing of it."""
    return next((one.rpartition("-")[0] for one in _ids(run)), None)


def names_of_node(node: str) -> tuple[str, ...]:
    """Return the names in a node's full name, without the Workflow's and without attempts."""
    return tuple(_ATTEMPT.sub("", name) for name in node.split(".")[1:])


def _listed(run: Any) -> list[Any]:
    return (run.run_details.task_details if run.run_details else None) or []


def _ids(run: Any) -> set[str]:
    return {child.pod_name for task in _listed(run) for child in task.child_tasks or [] if child.pod_name}


def _attempts(workflow: str, ids: set[str], displayed: Iterable[str]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return the attempts of every node, by the names that lead to it."""
    pieces = {"." + _ATTEMPT.sub("", name) for name in displayed}
    pieces |= {found[0] for name in displayed if (found := _ATTEMPT.search(name))}
    attempts: dict[tuple[str, ...], tuple[str, ...]] = {}
    for node in _nodes(workflow, ids, pieces):
        if _ATTEMPT.search(node):
            names = names_of_node(node)
            attempts[names] = tuple(sorted((*attempts.get(names, ()), node)))
    return attempts


def _nodes(workflow: str, ids: set[str], pieces: Iterable[str]) -> Iterator[str]:
    """Yield the full names of the nodes that are listed."""
    pieces, waiting = sorted(pieces), [(workflow, _hash(workflow))]
    while waiting:
        node, state = waiting.pop()
        yield node
        below = ((node + piece, _hash(piece, state)) for piece in pieces)
        waiting += [(name, number) for name, number in below if f"{workflow}-{number}" in ids]


def _workflow(node: str) -> str:
    return re.split(r"[(.]", node, maxsplit=1)[0]


def _hash(text: str, state: int = _FNV_START) -> int:
    """FNV-1a in 32 bits, of a text or of one that goes on."""
    for byte in text.encode():
        state = (state ^ byte) * _FNV_PRIME & _32_BITS
    return state


def _record(names: tuple[str, ...], attempts: tuple[str, ...], records: Mapping[tuple[str, str], Any]) -> Any:
    """Return the record of a node: of all that share its last name the one with these attempts below it."""
    if not names:
        return None
    ids = (f"{_workflow(node)}-{_hash(node)}" for node in attempts)
    return next((record for one in ids if (record := records.get((names[-1], one)))), None)


def _turns(every: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    """Return how many turns each loop has, by the names that lead to it."""
    loops = [(*names[:-1], _TURN.sub("", names[-1])) for names in every if names and _TURN.search(names[-1])]
    return {loop: loops.count(loop) for loop in loops}


def _turns_around(names: tuple[str, ...], turns: Mapping[tuple[str, ...], int]) -> int:
    """Return how many turns the innermost loop around a node has."""
    inside = [place for place, name in enumerate(names) if _TURN.search(name)]
    return turns[(*names[: inside[-1]], _TURN.sub("", names[inside[-1]]))] if inside else 1


def _time(when: datetime | None) -> datetime | None:
    return when if when and when.year >= _FIRST_YEAR else None
