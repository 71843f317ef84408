"""Several runs side by side: how far each came, what it steers, and what was set differently."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from steerlm_core.dotted import dotted
from steerlm_core.observe.text import duration, interval, number, outcome
from steerlm_core.report import figures
from steerlm_core.report.data import RunData
from steerlm_core.report.page import Block, Figures, Notes, Section, Table

_LONGEST_VALUE = 120


def comparison(runs: Sequence[RunData]) -> list[Section]:
    """Return the sections that compare runs."""
    return [_outcomes(runs), _distances(runs), _steering(runs), _settings(runs)]


def names(runs: Sequence[RunData]) -> list[str]:
    """Return a name for each run: its id, and its root where two are copies of one run."""
    ids = [run.run_id for run in runs]
    return [run.run_id if ids.count(run.run_id) == 1 else f"{run.run_id} in {run.root}" for run in runs]


def _outcomes(runs: Sequence[RunData]) -> Section:
    columns = ("run", "outcome", "iterations", "best policy", "fresh distance", "time")
    rows = [
        [
            name,
            outcome({"kind": run.kind}),
            str(len(run.iterations)),
            run.best_policy,
            interval(run.confirmation["distance"] if run.confirmation else None),
            duration(sum(each.seconds or 0.0 for each in run.spent)),
        ]
        for name, run in zip(names(runs), runs, strict=True)
    ]
    reasons = [(name, run.reason) for name, run in zip(names(runs), runs, strict=True)]
    return Section("outcomes", "Outcomes", "Why each run stopped, and how good its best policy is.",
                   [Table(columns, rows), Notes(reasons)])  # fmt: skip


def _distances(runs: Sequence[RunData]) -> Section:
    lead = "Distance after training on each run's own held-out groups, in nats, with its interval."
    most = max(len(run.iterations) for run in runs)
    series = {name: list(_points(run, most)) for name, run in zip(names(runs), runs, strict=True)}
    blocks: list[Block] = [Figures([figures.points_chart(series, None, "nats")])] if most else []
    counts = sorted({run.config.generate.candidates for run in runs})
    if len(counts) > 1:
        words = f"the runs draw {', '.join(map(str, counts))} candidates a group; their distances cannot be compared."
        blocks.append(Notes([("Different N", words)], alarming=True))
    return Section("distance", "Distance", lead, blocks)


def _points(run: RunData, places: int) -> Iterator[figures.Point]:
    for place in range(places):
        fields: Mapping[str, Any] = run.iterations[place].fields if place < len(run.iterations) else {}
        yield figures.Point(f"iteration {place}", fields.get("distance_after"), not fields.get("accepted", True))


def _steering(runs: Sequence[RunData]) -> Section:
    lead = "Spearman correlation of requested and found levels, of each run's best policy on fresh candidates."
    attributes = list(dict.fromkeys(name for run in runs for name in run.config.attribute_names))
    rows = []
    for name in attributes:
        for judge in ("measured", "predicted"):
            found = [
                (run.confirmation or {}).get("steering", {}).get(name, {}).get(f"spearman_{judge}") for run in runs
            ]
            rows.append([f"{name}, {judge}", *(number(value) for value in found)])
    return Section("steering", "Steering", lead, [Table(("Spearman correlation", *names(runs)), rows)])


def _settings(runs: Sequence[RunData]) -> Section:
    settings = [dict(dotted(run.config.model_dump(mode="json"))) for run in runs]
    keys = list(dict.fromkeys(key for each in settings for key in each))
    rows = [
        [key, *(str(each.get(key, "–"))[:_LONGEST_VALUE] for each in settings)]
        for key in keys
        if len({str(each.get(key)) for each in settings}) > 1
    ]
    blocks: list[Block] = [
        Table(("setting", *names(runs)), rows, words=1 + len(runs)) if rows else "Nothing: equal settings."
    ]
    return Section("settings", "What was set differently", "Settings in which the runs differ.", blocks)
