"""Log-probs of responses: the one way that re-scoring, the prior, training and evaluation all take.

- `response_log_probs` scores many groups without gradient, batched by a token budget, in their order.
- `batch_log_probs` is one forward with gradient; `sum_by_candidate` folds its tokens into [G, N].

Both lay out rows the same way (`packing`) and read the same head (`log_probs`). `choose_layout` takes the shared
prefix where the model gives the same log-probs in it, and says what it costs where not.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from steerlm_core.errors import CaptureError, ModelError
from steerlm_core.models.capability import capability_of
from steerlm_core.models.distribution import Sampling
from steerlm_core.models.groups import TokenGroup
from steerlm_core.models.log_probs import forward_log_probs
from steerlm_core.models.packing import RowLayout, pack, packed_share, plan_batches, split_group
from steerlm_core.progress import Tell, unheard

Layout = Literal["auto", "shared_prefix", "padded"]


@dataclass(frozen=True)
class TokenLogProbs:
    """Log-probs of the response tokens of one batch, flat and differentiable.

    Attributes:
        log_probs: One entry per response token, float32 at least. [M]
        candidate_index: The candidate of each token, numbered through the batch. [M]
        candidates: Number of candidates of every group of the batch.
    """

    log_probs: Tensor
    candidate_index: Tensor
    candidates: tuple[int, ...]


@dataclass(frozen=True)
class CandidateSums:
    """The same, summed by candidate. All [G, N], float64, padded with zeros where `valid` is False."""

    log_probs: Tensor
    response_tokens: Tensor
    valid: Tensor


@dataclass(frozen=True)
class GroupScores:
    """Log-probs of one group's responses, on the CPU.

    A column stands for each temperature asked for, then for the sampling distribution where one was given.

    Attributes:
        tokens: Log-probs of each response's tokens, float32, one [R_i, K] per response.
        sums: Their sums over the response, float64. [N, K]
    """

    tokens: tuple[Tensor, ...]
    sums: Tensor


def choose_layout(model: nn.Module, layout: Layout, groups: Sequence[TokenGroup] = ()) -> RowLayout:
    """Settle the layout: the shared prefix where the model supports it, else padded rows and a warning.

    Args:
        model: The model, or an engine around it; probed once per class and configuration.
        layout: What the user asked for; "shared_prefix" is refused where it would not be exact.
        groups: Used to say in the warning what padded rows cost.
    """
    if layout == "padded":
        return "padded"
    capability = capability_of(model)
    if capability.shared_prefix:
        return "shared_prefix"
    cost = f" It costs {1 / packed_share(groups):.1f} times the tokens." if groups else ""
    asked = " although layout is 'shared_prefix'" if layout == "shared_prefix" else ""
    warnings.warn(f"Prompts are repeated in padded rows{asked}: {capability.reason}.{cost}", stacklevel=2)
    return "padded"


def batch_log_probs(
    model: nn.Module, groups: Sequence[TokenGroup], *, layout: RowLayout, temperature: float = 1.0
) -> TokenLogProbs:
    """Run one forward over whole groups; gradients flow where they are switched on.

    Args:
        model: The model, or an engine around it.
        groups: The micro-batch; see `packing.plan_batches` for one within a token budget.
        layout: From `choose_layout`.
        temperature: Divides the logits.

    Raises:
        ModelError: Dropout is on: log-probs would be random, and layouts would differ.
    """
    _refuse_dropout(model)
    batch = pack(groups, layout).to(_device(model))
    log_probs = forward_log_probs(model, batch, (temperature,), plain_head=capability_of(model).plain_head)[:, 0]
    return TokenLogProbs(log_probs, batch.candidate_index, batch.candidates)


def sum_by_candidate(scores: TokenLogProbs) -> CandidateSums:
    """Sum token log-probs by candidate in float64, keeping the graph.

    Float32 is off by up to 6e-5 at -700 nats, and the objective takes differences of such sums.
    """
    sizes = torch.tensor(scores.candidates, device=scores.log_probs.device)
    valid = torch.arange(max(scores.candidates), device=sizes.device) < sizes[:, None]  # [G, N]
    place = valid.flatten().nonzero()[:, 0][scores.candidate_index]  # [M] index into [G * N]
    zeros = torch.zeros(valid.numel(), dtype=torch.float64, device=sizes.device)
    sums = zeros.index_add(0, place, scores.log_probs.double())
    counts = torch.zeros_like(zeros).index_add_(0, place, torch.ones_like(place, dtype=zeros.dtype))
    return CandidateSums(sums.view_as(valid), counts.view_as(valid), valid)


@torch.no_grad()
def response_log_probs(
    model: nn.Module,
    groups: Sequence[TokenGroup],
    *,
    temperatures: tuple[float, ...] = (1.0,),
    token_budget: int,
    layout: Layout = "auto",
    sampling: Sampling | None = None,
    progress: Tell = unheard,
) -> list[GroupScores]:
    """Score many groups without gradient; one result per group, in their order.

    Batches depend on the groups, the budget and the layout alone. Responses of a group larger than the budget
    are scored in several passes.

    Args:
        model: The model, or an engine around it.
        groups: What to score.
        temperatures: One column of the result for each.
        token_budget: Most tokens of one forward pass.
        layout: See `choose_layout`.
        sampling: Adds a column: log-probs of the distribution sampled from, renormalised over the kept set.
        progress: Told how many groups are done.

    Raises:
        CaptureError: A token lies outside the kept set of `sampling`: it cannot have been sampled from it.
    """
    if not groups:
        return []
    rows = choose_layout(model, layout, groups)
    plain_head = capability_of(model).plain_head
    pieces, owners = _pieces(groups, token_budget, rows)
    tokens: list[list[Tensor]] = [[] for _ in groups]
    for batch_range in plan_batches(pieces, token_budget, rows):
        batch = pack(pieces[batch_range.start : batch_range.stop], rows).to(_device(model))
        log_probs = forward_log_probs(model, batch, temperatures, sampling, plain_head)  # [M, K]
        lengths = [len(response) for number in batch_range for response in pieces[number].responses]
        scored = iter(log_probs.cpu().split(lengths))
        for number in batch_range:
            tokens[owners[number]].extend(next(scored) for _ in pieces[number].responses)
        progress(owners[batch_range.stop - 1] + 1, len(groups))
    if sampling is not None:
        _refuse_outsiders(groups, tokens, sampling)
    return [_group_scores(responses) for responses in tokens]


def _pieces(groups: Sequence[TokenGroup], token_budget: int, layout: RowLayout) -> tuple[list[TokenGroup], list[int]]:
    split = [split_group(group, token_budget, layout) for group in groups]
    owners = [number for number, pieces in enumerate(split) for _ in pieces]
    return [piece for pieces in split for piece in pieces], owners


def _group_scores(responses: list[Tensor]) -> GroupScores:
    sums = torch.stack([response.double().sum(0) for response in responses])  # [N, K]
    return GroupScores(tuple(response.float() for response in responses), sums)


def _refuse_outsiders(groups: Sequence[TokenGroup], tokens: list[list[Tensor]], sampling: Sampling) -> None:
    for number, (group, responses) in enumerate(zip(groups, tokens, strict=True)):
        for candidate, log_probs in enumerate(responses):
            outside = torch.isneginf(log_probs[:, -1]).nonzero()
            if len(outside):
                place = int(outside[0])
                raise CaptureError(
                    f"group {number}, candidate {candidate}, token {place} (id {group.responses[candidate][place]}): "
                    f"outside the set kept by top_k={sampling.top_k}, top_p={sampling.top_p} at temperature "
                    f"{sampling.temperature}. It was sampled from another model or with other settings: sample again."
                )


def _refuse_dropout(model: nn.Module) -> None:
    for name, module in model.named_modules():
        rate = getattr(module, "p" if isinstance(module, nn.Dropout) else "attention_dropout", 0.0)
        if module.training and isinstance(rate, float) and rate > 0:
            raise ModelError(f"{name}: dropout is {rate}. Set it to 0 in the model's config, or call model.eval().")


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
