"""evaluate: how far the model is from its target, on held-out groups, before and after training.

    distance_before = KL(ws || b at Q')        distance_after = KL(ws || b at the trained model)

Both over the same groups and samples (method.md, fact 3). Groups short of N complete candidates
stay out of the distance and are counted. `retained_mass` watches what the group softmax cannot
see, and the truncation rate of the trained model is estimated by importance weighting over every
group's first N draws, the cut ones included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import torch

from steerlm_core import layout
from steerlm_core.convergence import mean_interval
from steerlm_core.errors import DataError
from steerlm_core.models.groups import TokenGroup
from steerlm_core.models.scoring import response_log_probs
from steerlm_core.objective import baseline_log_weights, distance, reference_distance, retained_mass
from steerlm_core.schemas import EVALUATION
from steerlm_core.steering import level_counts, steering_table
from steerlm_core.steps.by_part import within
from steerlm_core.steps.context import StepContext
from steerlm_core.steps.output import Output
from steerlm_core.steps.rows import Row
from steerlm_core.steps.weigh import diagnostics, padded
from steerlm_core.store.manifest import Manifest
from steerlm_core.store.sealed import seal

_DISTANCES = ("distance_before", "distance_after", "reference_distance_after")


def run(context: StepContext) -> Manifest:
    """Evaluate the iteration's model; writes evaluation.json and the per-group table.

    Raises:
        DataError: No held-out group has N complete candidates.
    """
    stage, config = context.here, context.config
    groups = context.manifest(layout.stage_output(stage.prefix, "groups"))
    model = context.manifest(layout.policy_model(context.iteration))
    output = Output(
        context,
        "evaluate",
        layout.evaluation(context.iteration),
        {"groups": groups.content_digest, "model": model.content_digest},
        {"confidence": config.convergence.confidence, "samples": config.convergence.bootstrap_samples,
         "candidates": config.generate.candidates, "dtype": config.models.dtype},
    )  # fmt: skip
    return _publish(context, output.existing() or _evaluate(context, output, model))


def _evaluate(context: StepContext, output: Output, model: Manifest) -> Manifest:
    """Score, measure, and commit."""
    stage, config = context.here, context.config
    scored = list(_score(context, context.store.local_folder(model)))
    measured = measure_groups([group for part in scored for group in part], config.generate.candidates)
    counted = [row for row in measured if row["complete"]]
    if len(counted) < 2:
        raise DataError(
            f"{stage.prefix}: {len(counted)} of {len(measured)} held-out groups have {config.generate.candidates} "
            "complete candidates; two are needed. Raise generate.max_new_tokens or prompts.held_out, or set "
            "generate.truncated: keep."
        )
    output.write_table(pa.Table.from_pylist(measured, EVALUATION), "held_out")
    summary = {"iteration": context.iteration, **_summary(context, measured, scored)}
    distances = {name: summary[name]["mean"] for name in ("distance_before", "distance_after")}
    context.events.metric(**distances, retained_mass=summary["retained_mass"])
    return output.commit(summary=summary)


def _publish(context: StepContext, manifest: Manifest) -> Manifest:
    """Write what the manifest says once more where people and programs look for it."""
    key = layout.evaluation_document(layout.evaluation(context.iteration))
    context.store.create(key, seal(manifest.metrics["summary"]))
    return manifest


def _score(context: StepContext, folder: Any) -> Iterator[list[Row]]:
    """Yield every held-out part's groups with `log_p`, the sums under the model in `folder`."""
    config, weighed = context.config, layout.stage_output(context.here.prefix, "groups")
    model = context.models.causal_lm(folder, config.models.dtype)
    total, done = sum(part.rows for part in context.manifest(weighed).of_split("held_out")), 0
    for part, table in context.tables(weighed, ["held_out"]):
        groups = table.to_pylist()
        tokens = [TokenGroup(tuple(g["prompt_ids"]), tuple(tuple(ids) for ids in g["responses"])) for g in groups]
        scores = response_log_probs(
            model,
            tokens,
            token_budget=config.train.token_budget,
            layout=config.train.layout,
            progress=within(context, part, done, total, "groups"),
        )
        for group, scored in zip(groups, scores, strict=True):
            group["log_p"] = scored.sums[:, 0].tolist()
        done += part.rows
        context.events.progress(done, total, "groups")
        yield groups


def measure_groups(groups: list[Row], wanted: int) -> list[Row]:
    """Return one row of EVALUATION a group, from rows of GROUPS with `log_p`.

    Args:
        groups: Held-out groups, all of the same split.
        wanted: N, the number of draws that the truncation rate counts.
    """
    distances = _distances([group for group in groups if group["complete"]])
    log_p, log_q = padded(groups, "log_p"), padded(groups, "log_q")  # [G, N]
    drawn = _first_draws(groups, wanted)  # [G, N]
    mass = retained_mass(log_p, log_q, drawn)
    cut = padded(groups, "truncated", torch.bool) & drawn
    weight = ((log_p - log_q).exp() * drawn).sum(-1).clamp(min=1e-30)
    cut_after = ((log_p - log_q).exp() * cut).sum(-1) / weight
    return [
        {
            "group_id": group["group_id"],
            **distances.get(group["group_id"], dict.fromkeys(_DISTANCES, math.nan)),
            "ess": group["ess"],
            "retained_mass": float(mass[i]),
            "truncated_before": float(cut[i].sum() / drawn[i].sum()),
            "truncated_after": float(cut_after[i]),
            "complete": group["complete"],
        }
        for i, group in enumerate(groups)
    ]


def _distances(groups: list[Row]) -> dict[str, dict[str, float]]:
    """The three distances of every complete group, by group id."""
    if not groups:
        return {}
    valid = padded(groups, "valid", torch.bool)  # [G, N]
    log_p, start, log_q, log_ws = (padded(groups, name) for name in ("log_p", "log_p_start", "log_q", "log_ws"))
    trained = baseline_log_weights(log_p, log_q, valid)
    values = (
        distance(log_ws, baseline_log_weights(start, log_q, valid), valid),
        distance(log_ws, trained, valid),
        reference_distance(log_ws, trained, valid),
    )
    rows = torch.stack(values, dim=-1).tolist()
    return {group["group_id"]: dict(zip(_DISTANCES, row, strict=True)) for group, row in zip(groups, rows, strict=True)}


def _first_draws(groups: list[Row], wanted: int) -> torch.Tensor:
    width = max(len(group["index"]) for group in groups)
    return torch.tensor([[i < min(wanted, len(group["index"])) for i in range(width)] for group in groups])


def _summary(context: StepContext, measured: list[Row], scored: list[list[Row]]) -> dict[str, Any]:
    """The evaluation as people and the decision read it."""
    criteria = context.config.convergence
    counted = [row for row in measured if row["complete"]]

    def interval(column: str) -> dict[str, float]:
        values = {row["group_id"]: row[column] for row in counted}
        found = mean_interval(values, criteria.confidence, criteria.bootstrap_samples)
        return {"mean": found.estimate, "low": found.low, "high": found.high}

    def mean(column: str) -> float:
        return float(sum(row[column] for row in measured) / len(measured))

    drift = context.manifest(layout.stage_output(context.here.prefix, "candidates")).metrics
    return {
        "distance_before": interval("distance_before"),
        "distance_after": interval("distance_after"),
        "reference_distance_after": interval("reference_distance_after")["mean"],
        "groups": len(counted),
        "groups_left_out": len(measured) - len(counted),
        "n_candidates": context.config.generate.candidates,
        **diagnostics([group for part in scored for group in part if group["complete"]]),
        "retained_mass": mean("retained_mass"),
        "truncation_before": mean("truncated_before"),
        "truncation_after": mean("truncated_after"),
        "drift_token": drift["drift_token"],
        "drift_far_share": drift["drift_far_share"],
        **stage_steering(context),
    }


def stage_steering(context: StepContext) -> dict[str, Any]:
    """Requested against predicted and measured levels over the stage's held-out candidates: `steering`, `levels`."""
    stage = context.here.prefix
    targets: list[dict[str, int]] = []
    judged: dict[str, list[list[float]]] = {"predicted": [], "measured": []}
    for _, table in context.tables(layout.stage_output(stage, "candidates"), ["held_out"]):
        targets += [dict(target) for target in table["target"].to_pylist()]
    for _, table in context.tables(layout.stage_output(stage, "labels"), ["held_out"]):
        for judge, levels in judged.items():
            levels += table[judge].to_pylist()
    ranges = [(spec.name, spec.low, spec.high) for spec in context.config.attributes]
    return {
        "steering": steering_table(targets, dict(judged), context.config.attribute_names),
        "levels": level_counts(targets, dict(judged), ranges),
    }
