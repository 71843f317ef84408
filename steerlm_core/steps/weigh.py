"""weigh: candidates, labels and prior scores become groups with their target weights.

    ws = softmax_i(log_p_attr + log_p_prior - log_q)      over the valid candidates of a group

A candidate cut by the length limit has no end token: it is dropped before `ws` (the default) or
kept everywhere; never a mix. A group with fewer than two valid candidates cannot be weighed: it is
counted, stays in the table without weights, and takes part in neither training nor distance.
"""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import torch

from steerlm_core import layout
from steerlm_core.errors import DataError
from steerlm_core.objective import effective_sample_size, entropy, spread, target_log_weights
from steerlm_core.schemas import GROUPS
from steerlm_core.steps.context import StepContext
from steerlm_core.steps.output import Output
from steerlm_core.steps.rows import Row, by_group
from steerlm_core.store.manifest import Manifest

_TERMS = ("log_p_attr", "log_p_prior", "log_q")
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def run(context: StepContext) -> Manifest:
    """Weigh the candidates of the stage; returns the manifest of the groups.

    Raises:
        DataError: No group is left.
    """
    stage, config = context.here, context.config
    names: tuple[layout.StageOutput, ...] = ("candidates", "labels", "prior_scores")
    read = {name: context.manifest(layout.stage_output(stage.prefix, name)) for name in names}
    output = Output(
        context,
        "weigh",
        layout.stage_output(stage.prefix, "groups"),
        {name: manifest.content_digest for name, manifest in read.items()},
        {"truncated": config.generate.truncated, "candidates": config.generate.candidates},
    )
    if done := output.existing():
        return done
    weighed: list[Row] = []
    dropped = read_rows = 0
    for parts in zip(*(read[name].parts for name in names), strict=True):
        table = _join(*(context.store.read_table(part) for part in parts))
        groups = [_group(rows, config.generate.truncated == "keep") for _, rows in by_group(table)]
        usable = _weigh([group for group in groups if sum(group["valid"]) >= 2], config.generate.candidates)
        dropped += len(groups) - len(usable)
        output.write_table(pa.Table.from_pylist(groups, GROUPS), parts[0].split)
        weighed += usable
        read_rows += parts[0].rows
        context.events.progress(read_rows, sum(part.rows for part in read["candidates"].parts), "candidates")
    if dropped:
        context.events.warning(f"{dropped} group(s) dropped: fewer than two complete responses.")
    if not weighed:
        raise DataError(
            f"{stage.prefix}: every group was dropped: all responses reach generate.max_new_tokens = "
            f"{config.generate.max_new_tokens} without an end token. Raise it, or set generate.truncated: keep."
        )
    numbers = {"groups": len(weighed), "groups_dropped": dropped, **diagnostics(weighed)}
    context.events.metric(**numbers)
    return output.commit(**numbers, quantiles=quantiles(weighed))


def _join(candidates: pa.Table, labels: pa.Table, scores: pa.Table) -> pa.Table:
    """Put the columns side by side; the three tables hold the same candidates in the same order."""
    for other in (labels, scores):
        for key in ("group_id", "index"):
            assert candidates[key].equals(other[key]), f"rows of a part do not match in {key}"
    joined = candidates.append_column("log_p_attr", labels["log_p_attr"])
    return joined.append_column("log_p_prior", scores["log_p_prior"])


def _group(rows: list[Row], keep_truncated: bool) -> Row:
    """One row of GROUPS, not yet weighed."""
    truncated = [row["finish_reason"] == "length" for row in rows]
    first = rows[0]
    return {
        "group_id": first["group_id"],
        "split": first["split"],
        "target": first["target"],
        "prompt_ids": first["policy_prompt_ids"],
        "index": [row["index"] for row in rows],
        "responses": [row["response_ids"] for row in rows],
        "truncated": truncated,
        "valid": [keep_truncated or not cut for cut in truncated],
        **{term: [row[term] for row in rows] for term in (*_TERMS, "log_p_start")},
        "log_ws": [-math.inf] * len(rows),
        "ess": 0.0,
        "complete": False,
    }


def _weigh(groups: list[Row], wanted: int) -> list[Row]:
    """Fill in log_ws, ess and completeness of groups that have two valid candidates or more."""
    if not groups:
        return []
    valid = padded(groups, "valid", torch.bool)  # [G, N]
    log_p_attr, log_p_prior, log_q = (padded(groups, term) for term in _TERMS)
    log_ws = target_log_weights(log_p_attr, log_p_prior, log_q, valid)
    ess = effective_sample_size(log_ws, valid=valid)
    for number, group in enumerate(groups):
        group["log_ws"] = log_ws[number, : len(group["valid"])].tolist()
        group["ess"] = float(ess[number])
        group["complete"] = sum(group["valid"]) >= wanted
    return groups


def padded(groups: list[Row], column: str, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Return a list column of GROUPS as `[G, N]`, padded with zeros (False)."""
    width = max(len(group[column]) for group in groups)
    rows = [list(group[column]) + [0] * (width - len(group[column])) for group in groups]
    return torch.tensor(rows, dtype=dtype)


def diagnostics(groups: list[Row]) -> dict[str, float]:
    """Return what users must see of the weights: medians of ESS, max ws, entropy, spread of each term."""
    return {f"{name}_median": float(np.median(values)) for name, values in _by_group(groups).items()}


def quantiles(groups: list[Row]) -> dict[str, list[float]]:
    """Return how the same numbers spread over the groups: least, 5%, 25%, 50%, 75%, 95%, and greatest of each."""
    return {name: np.quantile(values, _QUANTILES).tolist() for name, values in _by_group(groups).items()}


def _by_group(groups: list[Row]) -> dict[str, np.ndarray]:
    """The diagnostics of every group, `[G]` each."""
    valid, log_ws = padded(groups, "valid", torch.bool), padded(groups, "log_ws")
    numbers = {
        "ess": effective_sample_size(log_ws, valid),
        "max_ws": log_ws.masked_fill(~valid, float("-inf")).exp().amax(-1),
        "entropy": entropy(log_ws, valid),
        **{f"spread_{term}": spread(padded(groups, term), valid) for term in _TERMS},
    }
    return {name: values.numpy() for name, values in numbers.items()}
