"""The gradient of one global batch, over the passes of one rank.

    plan ─► parts scored without a graph ─► w = ws - b of whole groups ┐
         ─► whole groups: one forward, one backward                    ├─► the engine's gradient
         ─► parts: one forward and backward each, weighted by w ───────┘

Both ways give Σ_i (ws_i - b_i) ∇NLL_i / L̄ for every group, over the number of groups in the global
batch; never over tokens, passes or ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steerlm_core.models.groups import TokenGroup
from steerlm_core.objective import (
    baseline_log_weights,
    distance,
    effective_sample_size,
    entropy,
    mean_response_tokens,
    steerlm_loss,
    two_pass_loss,
    two_pass_weights,
)
from steerlm_core.training.engines import Engine
from steerlm_core.training.job import TrainGroup
from steerlm_core.training.plan import Pass, Piece, RankPlan

NUMBERS = ("loss", "distance", "ess")  # of every group


@dataclass(frozen=True)
class Terms:
    """The fixed terms of some groups as padded tensors, all [G, N]."""

    log_q: Tensor
    log_ws: Tensor
    response_tokens: Tensor
    valid: Tensor

    @classmethod
    def of(cls, groups: Sequence[TrainGroup], device: torch.device) -> Terms:
        """Pad the terms of groups of different sizes."""
        counts = [len(group.tokens.responses) for group in groups]
        lengths = [[float(len(response)) for response in group.tokens.responses] for group in groups]
        log_q, log_ws, tokens = (
            padded([torch.tensor(row, dtype=torch.float64) for row in rows]).to(device)
            for rows in ([group.log_q for group in groups], [group.log_ws for group in groups], lengths)
        )
        valid = torch.arange(max(counts))[None] < torch.tensor(counts)[:, None]
        return cls(log_q, log_ws, tokens, valid.to(device))


def padded(rows: Sequence[Tensor]) -> Tensor:
    """Stack rows of different lengths, zeros behind the short ones: [G, N]."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def accumulate(engine: Engine, batch: Sequence[TrainGroup], plan: RankPlan) -> Tensor:
    """Leave the gradient of the batch in the engine.

    Args:
        engine: Holds the policy.
        batch: The whole global batch.
        plan: The passes of this rank.

    Returns:
        NUMBERS of every group that this rank trained, 0 elsewhere: [B, 3], float64.
    """
    numbers = torch.zeros(len(batch), len(NUMBERS), dtype=torch.float64, device=engine.device)
    weights = _weights_of_parts(engine, batch, plan.scored, numbers)
    passes = [(item, False) for item in plan.whole] + [(item, True) for item in plan.parts]
    for number, (item, is_part) in enumerate(passes, start=1):
        log_p = engine.forward(tokens_of(batch, item))
        if not item or not _finite(log_p, item, numbers):
            loss = 0.0 * log_p.sum()
        elif is_part:
            loss = _part_loss(log_p, batch, item[0], weights)
        else:
            loss = _whole_loss(log_p, batch, item, numbers)
        engine.backward(loss, last=number == len(passes))
    return numbers


def _finite(log_p: Tensor, item: Pass, numbers: Tensor) -> bool:
    """Whether all is finite; if not, mark the groups. No rank may raise here: the others would wait for it."""
    if bool(log_p.isfinite().all()):
        return True
    numbers[[piece.position for piece in item]] = torch.nan
    return False


def tokens_of(batch: Sequence[TrainGroup], item: Pass) -> list[TokenGroup]:
    """Return the token groups of a pass; an empty one runs the shortest response of the batch, for no weight."""
    if item:
        return [piece.of(batch[piece.position].tokens) for piece in item]
    shortest = min((group.tokens for group in batch), key=lambda tokens: tokens.packed_tokens)
    return [TokenGroup(shortest.prompt, (min(shortest.responses, key=len),))]


def _weights_of_parts(
    engine: Engine, batch: Sequence[TrainGroup], scored: Sequence[Pass], numbers: Tensor
) -> dict[int, Tensor]:
    """Score the parts of large groups; return w = ws - b of each whole group, [1, N], by its position."""
    pieces: dict[int, list[Tensor]] = {}
    with torch.no_grad():
        for item in scored:
            log_p = engine.forward(tokens_of(batch, item))
            for piece in item:
                pieces.setdefault(piece.position, []).append(log_p)
        weights = {}
        for position, found in pieces.items():
            terms, log_p = Terms.of([batch[position]], engine.device), torch.cat(found)[None]
            if _finite(log_p, (Piece(position, 0, log_p.shape[1]),), numbers):
                weights[position] = two_pass_weights(log_p, terms.log_q, terms.log_ws, terms.valid)
                _note(numbers, [position], log_p, terms)
    return weights


def _part_loss(log_p: Tensor, batch: Sequence[TrainGroup], piece: Piece, weights: dict[int, Tensor]) -> Tensor:
    if piece.position not in weights:
        return 0.0 * log_p.sum()
    terms = Terms.of([batch[piece.position]], log_p.device)
    mean_tokens = mean_response_tokens(terms.response_tokens, terms.valid)
    return two_pass_loss(log_p[None], weights[piece.position][:, piece.start : piece.stop], mean_tokens, len(batch))


def _whole_loss(log_p: Tensor, batch: Sequence[TrainGroup], item: Pass, numbers: Tensor) -> Tensor:
    positions = [piece.position for piece in item]
    terms = Terms.of([batch[position] for position in positions], log_p.device)
    rows = padded(log_p.split([piece.stop for piece in item]))  # [G, N]
    _note(numbers, positions, rows.detach(), terms)
    return steerlm_loss(rows, terms.log_q, terms.log_ws, terms.response_tokens, terms.valid, num_groups=len(batch))


def _note(numbers: Tensor, positions: Sequence[int], log_p: Tensor, terms: Terms) -> None:
    """Write loss, distance and effective sample size of whole groups into their rows."""
    kl = distance(terms.log_ws, baseline_log_weights(log_p, terms.log_q, terms.valid), terms.valid)
    cross_entropy = kl + entropy(terms.log_ws, terms.valid)
    numbers[positions, 0] = cross_entropy / mean_response_tokens(terms.response_tokens, terms.valid)
    numbers[positions, 1] = kl
    numbers[positions, 2] = effective_sample_size(terms.log_ws, terms.valid)
