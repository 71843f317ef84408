"""From a run root to `RunData`: manifests, evaluations, and one part of candidates an iteration for the samples."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from steerlm_core import layout
from steerlm_core.config import RunConfig
from steerlm_core.report.data import Answer, Iteration, Levels, Origin, RunData, Sample, Spent, policy_name
from steerlm_core.report.run_view import IterationView, RunView
from steerlm_core.report.words import reason

_MOST_SAMPLES = 8
_MOST_POLICIES = 6


def read_run(view: RunView, upto: int | None = None) -> RunData:
    """Read what a report says.

    Args:
        view: The run.
        upto: Only what was known when this iteration ended; None: all that is known now.
    """
    past = [each for each in view.committed if upto is None or each.number <= upto]
    whole = len(past) == len(view.committed)
    last = past[-1].fields if past else {}
    return RunData(
        root=view.root,
        run_id=view.run_id,
        config=view.config,
        versions=view.described.get("versions", {}),
        config_digest=str(view.described.get("config_digest", "")),
        reason=reason(view) if whole else str(last.get("reason", "")),
        kind=str(last.get("kind", "running")),
        best=last.get("best_iteration"),
        iterations=[_iteration(view, each) for each in past],
        confirmation=view.confirmation if whole else None,
        levels=list(_levels(view, past, whole)),
        quality=_quality(view),
        policy_0_losses=_metrics(view, layout.policy_model(None)).get("validation_losses", ()),
        samples=_samples(view, past, whole),
        spent=list(_spent(view, past)),
        origins=list(_origins(view, past)),
        warnings=[(place, said) for number, place, said in view.warnings if upto is None or (number or 0) <= upto],
    )


def _iteration(view: RunView, each: IterationView) -> Iteration:
    stage = layout.iteration(each.number)
    return Iteration(
        number=each.number,
        fields=each.fields,
        weights=_metrics(view, layout.stage_output(stage, "groups")).get("quantiles", {}),
        drift=_metrics(view, layout.stage_output(stage, "candidates")).get("drift_histogram", {}),
        curve=_metrics(view, layout.policy_model(each.number)).get("curve", {}),
    )


def _metrics(view: RunView, prefix: str) -> Mapping[str, Any]:
    return view.manifest(prefix).metrics if view.store.exists(layout.manifest(prefix)) else {}


def _levels(view: RunView, past: Sequence[IterationView], whole: bool) -> Iterator[Levels]:
    """What every policy's candidates came to: those of an iteration are of the policy that it started from."""
    for each in past:
        yield Levels(_start(past, each.number), each.fields.get("levels", {}), each.fields.get("steering", {}))
    if whole and view.confirmation:
        found = view.confirmation
        yield Levels(f"{policy_name(view.best)}, fresh", found.get("levels", {}), found.get("steering", {}))


def _start(past: Sequence[IterationView], number: int) -> str:
    """Name the policy that an iteration samples from: that of the last accepted one before it."""
    accepted = [each.number for each in past if each.number < number and each.fields["accepted"]]
    return policy_name(accepted[-1] if accepted else None)


def _quality(view: RunView) -> Mapping[str, Mapping[str, float]]:
    """The attribute model's quality, from its own folder: a model that the user gave has it too."""
    if not view.store.exists(layout.manifest(layout.ATTRIBUTE_MODEL)):
        return {}
    for part in view.manifest(layout.ATTRIBUTE_MODEL).parts:
        if part.key.endswith(f"/{layout.ATTRIBUTE_INFO}"):
            return dict(json.loads(view.store.local_file(part).read_text()).get("quality", {}))
    return {}


def _samples(view: RunView, past: Sequence[IterationView], whole: bool) -> list[Sample]:
    """Responses of every policy to the same held-out prompts: the first candidate of each, not a chosen one."""
    stages = [(_start(past, each.number), layout.iteration(each.number)) for each in past]
    if len(stages) > _MOST_POLICIES:
        stages = [*stages[: _MOST_POLICIES // 2], *stages[-(_MOST_POLICIES // 2) :]]
    if whole and view.confirmation:
        stages.append((f"{policy_name(view.best)}, fresh", layout.confirmation(view.best)))
    read = [(policy, rows) for policy, stage in stages if (rows := _first_candidates(view, stage))]
    if not read:
        return []
    first = read[0][1]
    chosen = _contrasting({key: dict(row["target"]) for key, row in first.items()}, view.config)
    return [
        Sample(
            prompt=str(first[key]["prompt"]),
            target=dict(first[key]["target"]),
            answers=[_answer(policy, rows[key], view.config) for policy, rows in read if key in rows],
        )
        for key in chosen
    ]


def _first_candidates(view: RunView, stage: str) -> dict[str, dict[str, Any]]:
    """Candidate 0 of every group in the first held-out part, with its levels; first parts hold the same prompts.

    Nothing where the candidates of an old iteration are no longer kept.
    """
    outputs = layout.stage_output(stage, "candidates"), layout.stage_output(stage, "labels")
    parts = [view.manifest(output).of_split("held_out")[:1] for output in outputs]
    if not all(view.store.exists(part.key) for found in parts for part in found):
        return {}
    tables = [[row for part in found for row in view.store.read_table(part).to_pylist()] for found in parts]
    merged = ({**row, **label} for row, label in zip(*tables, strict=True))
    return {row["group_id"]: row for row in merged if row["index"] == 0}


def _contrasting(targets: Mapping[str, Mapping[str, int]], config: RunConfig) -> list[str]:
    """Choose groups at both ends of every attribute, as far as the targets have them."""
    chosen: list[str] = []
    for spec in config.attributes:
        asked = {key: target[spec.name] for key, target in targets.items() if spec.name in target}
        for wanted in {min(asked.values()): 0, max(asked.values()): 0} if asked else {}:
            free = [key for key, level in asked.items() if level == wanted and key not in chosen]
            chosen += free[:1]
    return (chosen or list(targets))[:_MOST_SAMPLES]


def _answer(policy: str, row: Mapping[str, Any], config: RunConfig) -> Answer:
    predicted, measured = (
        {name: float(v) for name, v in zip(config.attribute_names, row[judge], strict=True) if not math.isnan(v)}
        for judge in ("predicted", "measured")
    )
    return Answer(policy, str(row["text"]), predicted, measured)


def _spent(view: RunView, past: Sequence[IterationView]) -> Iterator[Spent]:
    seconds = view.seconds
    bootstrap = _metrics(view, layout.policy_model(None)).get("tokens")
    yield Spent(None, "prepare", seconds.get((None, "prepare")), bootstrap)
    for each in past:
        by_split = _response_tokens(view, layout.iteration(each.number))
        judged = sum(by_split.values()) or None
        tokens = {
            **dict.fromkeys(("generate", "label", "score_prior"), judged),
            "train": _metrics(view, layout.policy_model(each.number)).get("tokens"),
            "evaluate": by_split.get("held_out"),
        }
        for step in layout.ITERATION_STEPS:
            yield Spent(each.number, step, seconds.get((each.number, step)), tokens.get(step))
    if (None, "confirm") in seconds:
        by_split = _response_tokens(view, layout.confirmation(view.best))
        yield Spent(None, "confirm", seconds[(None, "confirm")], sum(by_split.values()) or None)


def _response_tokens(view: RunView, stage: str) -> Mapping[str, int]:
    """Tokens of the responses of a stage, by split."""
    found: Mapping[str, int] = _metrics(view, layout.stage_output(stage, "candidates")).get("response_tokens", {})
    return found


def _origins(view: RunView, past: Sequence[IterationView]) -> Iterator[Origin]:
    prefixes = list(layout.BEFORE_THE_LOOP)
    prefixes += [prefix for each in past for prefix in layout.iteration_outputs(each.number)]
    if view.confirmation:
        prefixes += layout.stage_outputs(layout.confirmation(view.best))
    for prefix in prefixes:
        if not view.store.exists(layout.manifest(prefix)):
            continue  # a model that the user gave needs no annotated texts
        made = view.manifest(prefix)
        size = sum(part.size for part in made.parts)
        yield Origin(prefix, made.step, made.inputs, made.content_digest, len(made.parts), size)
