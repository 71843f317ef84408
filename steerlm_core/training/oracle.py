"""The step-0 oracle: before the first update the policy must say what was stored when it was sampled.

    log_p (this code, now) - log_p_start (stored)       per candidate: 0 up to rounding
    T = 1, no truncation:  log_q = log_p_start, so  b = 1/N  and  distance = log N - H(ws)

Any deviation is a capture bug: other weights, another mask, another tokenisation, another dtype.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from steerlm_core.config import GenerateConfig
from steerlm_core.errors import CaptureError
from steerlm_core.models.packing import RowLayout
from steerlm_core.objective import baseline_log_weights, distance, entropy
from steerlm_core.training.engines import Engine
from steerlm_core.training.gradient import Terms, padded, tokens_of
from steerlm_core.training.job import TrainGroup
from steerlm_core.training.plan import plan_scoring

# Enough for the gate's share of one in a thousand, and little beside training on all groups.
_MOST_GROUPS = 1024
_DRIFTED = math.log(3)
_STORED_TOLERANCE = 1e-6  # log_q and log_p_start of plain sampling are one number, stored twice
# What rounding of a few hundred summed log-probs does to the distance. In bfloat16 the drift gates alone decide.
_DISTANCE_TOLERANCE = {"float32": 1e-2, "float64": 1e-2}


def check_step_zero(
    engine: Engine,
    groups: Sequence[TrainGroup],
    config: GenerateConfig,
    budget: int,
    layout: RowLayout,
    dtype: str,
) -> dict[str, float]:
    """Compare the untrained policy with the stored log-probs, on all groups or 1024 spread evenly over them.

    Returns:
        The largest |log_p - log_p_start|, the mean exp|Δ| per token and, for plain sampling, the largest error of
        the distance.

    Raises:
        CaptureError: A gate has failed; the message names the worst group and candidate.
    """
    stride = -(-len(groups) // _MOST_GROUPS)
    checked = groups[::stride]
    log_p = score(engine, checked, budget, layout)
    drift = [p - torch.tensor(group.log_p_start, dtype=torch.float64) for p, group in zip(log_p, checked, strict=True)]
    metrics = _check_drift(drift, checked, config)
    if config.temperature == 1.0 and config.top_p == 1.0 and config.top_k == 0:
        metrics["oracle_distance_error"] = _check_uniform(log_p, checked, _DISTANCE_TOLERANCE.get(dtype, math.inf))
    return metrics


def score(engine: Engine, groups: Sequence[TrainGroup], budget: int, layout: RowLayout) -> list[Tensor]:
    """Return log Q of every response of every group, over all ranks: G tensors [N], float64, on the CPU."""
    starts = [0]
    for group in groups:
        starts.append(starts[-1] + len(group.tokens.responses))
    values = torch.zeros(starts[-1], dtype=torch.float64, device=engine.device)
    plans = plan_scoring([group.tokens for group in groups], engine.world, budget, layout)
    with torch.no_grad():
        for item in plans[engine.rank]:
            log_p = engine.forward(tokens_of(groups, item)).double()
            for piece, part in zip(item, log_p.split([p.stop - p.start for p in item]) if item else (), strict=True):
                values[starts[piece.position] + piece.start : starts[piece.position] + piece.stop] = part
    return list(engine.total(values).cpu().split([len(group.tokens.responses) for group in groups]))


def _check_drift(drift: Sequence[Tensor], groups: Sequence[TrainGroup], config: GenerateConfig) -> dict[str, float]:
    lengths = [torch.tensor([float(len(r)) for r in group.tokens.responses]) for group in groups]
    flat, tokens = torch.cat(list(drift)).abs(), torch.cat(lengths).double()  # [candidates]
    per_token = float(((flat / tokens).exp() * tokens).sum() / tokens.sum())
    drifted = float((flat > _DRIFTED).double().mean())
    # Written so that NaN fails.
    if not (per_token <= config.max_token_drift and drifted <= config.max_drifted_share):
        raise CaptureError(
            f"step-0 oracle: the policy does not repeat the stored log-probs. mean exp|Δ| per token is {per_token:.4g} "
            f"(allowed {config.max_token_drift:g}), {drifted:.2%} of the sequences are off by more than log 3 (allowed "
            f"{config.max_drifted_share:.2%}). Worst: {_worst(drift, groups)}. The policy, the prompt or the dtype is "
            "not the one that log_p_start was scored with: run the generate step again with this iteration's policy."
        )
    return {"oracle_max_drift": float(flat.max()), "oracle_token_drift": per_token}


def _worst(drift: Sequence[Tensor], groups: Sequence[TrainGroup]) -> str:
    rows = padded([row.abs().nan_to_num(nan=torch.inf) for row in drift])
    row, column = divmod(int(rows.argmax()), rows.shape[1])
    return (
        f"group {groups[row].group_id}, valid candidate {column}: stored log_p_start "
        f"{groups[row].log_p_start[column]:.4f}, now {groups[row].log_p_start[column] + float(drift[row][column]):.4f}"
    )


def _check_uniform(log_p: Sequence[Tensor], groups: Sequence[TrainGroup], tolerance: float) -> float:
    """Plain sampling: log_q is log_p_start, b is 1/N and the distance log N - H(ws); return its largest error."""
    for group in groups:
        for column, (q, p) in enumerate(zip(group.log_q, group.log_p_start, strict=True)):
            if abs(q - p) > _STORED_TOLERANCE * max(1.0, abs(p)):
                raise CaptureError(
                    f"step-0 oracle: group {group.group_id}, valid candidate {column}: log_q is {q:.6f}, "
                    f"log_p_start is {p:.6f}; plain sampling stores one number twice. Run the generate step again."
                )
    terms = Terms.of(groups, torch.device("cpu"))
    log_b = baseline_log_weights(padded(log_p), terms.log_q, terms.valid)
    expected = terms.valid.sum(-1).log() - entropy(terms.log_ws, terms.valid)  # [G]
    off = (distance(terms.log_ws, log_b, terms.valid) - expected).abs()
    row = int(off.argmax())
    if off[row] > tolerance:
        raise CaptureError(
            f"step-0 oracle: group {groups[row].group_id}: the distance is {float(off[row]):.4g} off log N - H(ws), "
            f"its value for b = 1/N; rounding explains {tolerance:g}. Run the generate step again with this policy."
        )
    return float(off[row])
