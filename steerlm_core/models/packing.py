"""How groups of tokens become the rows of one forward pass. Pure: token ids in, index tensors out.

Two layouts give the same log-probs:

- `shared_prefix`: one row `[prompt][y_1]...[y_N]` per group, all groups of the batch behind one another in
  a single row. Positions restart after the prompt for every response; the last prompt token predicts the
  first token of all of them.
- `padded`: one right-padded row `[prompt][y_i]` per response.

The last token of a response predicts nothing, so neither layout feeds it to the model. All tensors are on
the CPU; `.to(device)` moves a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor

from steerlm_core.errors import DataError
from steerlm_core.models.groups import TokenGroup

RowLayout = Literal["shared_prefix", "padded"]


@dataclass(frozen=True)
class Blocks:
    """Which tokens of a shared-prefix row see which: the block structure of its attention mask.

    Padding of the two index tensors points at token 0; the masks beside them say where it stands.

    Attributes:
        prompts: Row index of every prompt token. [G, P]
        prompt_valid: Which of them are real; None: all. [G, P]
        responses: Row index of every response token fed to the model. [G, N, R]
        response_valid: Which of them are real; None: all. [G, N, R]
        slots: Where each token of the row stands in (prompts, responses), both flattened. [T]
        segments: Number of the prompt or response that a token belongs to. [T]
        parents: Number of the prompt that a token may look back at. [T]
    """

    prompts: Tensor
    prompt_valid: Tensor | None
    responses: Tensor
    response_valid: Tensor | None
    slots: Tensor
    segments: Tensor
    parents: Tensor

    def to(self, device: torch.device | str) -> Blocks:
        """Return the same blocks on another device."""
        parts: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return Blocks(**{name: None if part is None else part.to(device) for name, part in parts.items()})

    def dense_mask(self) -> Tensor:
        """Return the whole attention mask, True where row i may look at column j. [1, 1, T, T]"""
        causal = torch.ones(len(self.slots), len(self.slots), dtype=torch.bool, device=self.slots.device).tril()
        same = self.segments[:, None] == self.segments[None, :]  # [T, T]
        parent = self.parents[:, None] == self.segments[None, :]  # [T, T]
        return (causal & (same | parent))[None, None]


@dataclass(frozen=True)
class PackedBatch:
    """The input of one forward pass, and where in its output the response tokens are predicted.

    Candidates are numbered through the batch, group after group; M is the number of response tokens.

    Attributes:
        input_ids: Token ids. [B, T]
        position_ids: Position of each token in its own sequence. [B, T]
        attention_mask: True for real tokens of padded rows; None: there is no padding. [B, T]
        rows: Flat index into [B * T] of the position that predicts each response token. [M]
        targets: The response tokens themselves. [M]
        candidate_index: The candidate that each response token belongs to. [M]
        candidates: Number of candidates of every group.
        blocks: Attention structure (layout shared_prefix), else None.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor | None
    rows: Tensor
    targets: Tensor
    candidate_index: Tensor
    candidates: tuple[int, ...]
    blocks: Blocks | None

    def to(self, device: torch.device | str) -> PackedBatch:
        """Return the same batch on another device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor | Blocks)}
        return PackedBatch(**{**vars(self), **moved})


def pack(groups: Sequence[TokenGroup], layout: RowLayout) -> PackedBatch:
    """Lay out groups for one forward pass.

    Raises:
        DataError: A prompt or a response is empty.
    """
    for number, group in enumerate(groups):
        _check(group, number)
    return _pack_shared(groups) if layout == "shared_prefix" else _pack_padded(groups)


def _check(group: TokenGroup, number: int) -> None:
    if not group.prompt:
        raise DataError(f"group {number}: the prompt has no tokens. Give it at least a start token.")
    if not group.responses or not all(group.responses):
        raise DataError(f"group {number}: a response has no tokens. Drop the candidate before scoring.")


def _pack_shared(groups: Sequence[TokenGroup]) -> PackedBatch:
    ids: list[int] = []
    positions: list[int] = []
    predicting: list[int] = []  # row index that predicts each response token
    prompts: list[range] = []
    responses: list[list[range]] = []
    for group in groups:
        prompts.append(range(len(ids), len(ids) + len(group.prompt)))
        ids.extend(group.prompt)
        positions.extend(range(len(group.prompt)))
        responses.append([])
        for response in group.responses:
            fed = range(len(ids), len(ids) + len(response) - 1)
            responses[-1].append(fed)
            predicting.extend((prompts[-1][-1], *fed))
            ids.extend(response[:-1])
            positions.extend(range(len(group.prompt), len(group.prompt) + len(fed)))
    return PackedBatch(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        attention_mask=None,
        rows=torch.tensor(predicting),
        blocks=_blocks(prompts, responses, len(ids)),
        **_targets(groups),
    )


def _blocks(prompts: list[range], responses: list[list[range]], tokens: int) -> Blocks:
    most = max(len(group) for group in responses)
    square = [fed for group in responses for fed in (*group, *[range(0)] * (most - len(group)))]
    prompt_index, prompt_valid = _pad(prompts)
    response_index, response_valid = _pad(square)
    shape = (len(prompts), most, response_index.shape[1])
    slots = torch.empty(tokens, dtype=torch.long)
    flat_index = torch.cat([prompt_index.flatten(), response_index.flatten()])
    flat_valid = torch.cat([prompt_valid.flatten(), response_valid.flatten()])
    slots[flat_index[flat_valid]] = flat_valid.nonzero().flatten()
    segments, parents = _segments(prompts, responses)
    return Blocks(
        prompts=prompt_index,
        prompt_valid=None if bool(prompt_valid.all()) else prompt_valid,
        responses=response_index.view(shape),
        response_valid=None if bool(response_valid.all()) else response_valid.view(shape),
        slots=slots,
        segments=segments,
        parents=parents,
    )


def _segments(prompts: list[range], responses: list[list[range]]) -> tuple[Tensor, Tensor]:
    lengths: list[int] = []
    parents: list[int] = []
    for prompt, group in zip(prompts, responses, strict=True):
        parents.extend([len(lengths)] * (1 + len(group)))
        lengths.extend(len(part) for part in (prompt, *group))
    repeats = torch.tensor(lengths)
    return torch.arange(len(lengths)).repeat_interleave(repeats), torch.tensor(parents).repeat_interleave(repeats)


def _pad(ranges: Sequence[range]) -> tuple[Tensor, Tensor]:
    """Return the ranges as rows of one index tensor padded with 0, and which entries are real."""
    starts = torch.tensor([part.start for part in ranges])[:, None]
    lengths = torch.tensor([len(part) for part in ranges])[:, None]
    columns = torch.arange(int(lengths.max()))[None]
    valid = columns < lengths
    return torch.where(valid, starts + columns, 0), valid


def _pack_padded(groups: Sequence[TokenGroup]) -> PackedBatch:
    sequences = [(group.prompt, response) for group in groups for response in group.responses]
    width = max(len(prompt) + len(response) - 1 for prompt, response in sequences)
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros(len(sequences), width, dtype=torch.bool)
    predicting: list[int] = []
    for row, (prompt, response) in enumerate(sequences):
        fed = prompt + response[:-1]
        ids[row, : len(fed)] = torch.tensor(fed)
        mask[row, : len(fed)] = True
        predicting.extend(range(row * width + len(prompt) - 1, row * width + len(fed)))
    return PackedBatch(
        input_ids=ids,
        position_ids=torch.arange(width).expand(len(sequences), width),
        attention_mask=None if bool(mask.all()) else mask,
        rows=torch.tensor(predicting),
        blocks=None,
        **_targets(groups),
    )


def _targets(groups: Sequence[TokenGroup]) -> dict[str, Any]:
    responses = [response for group in groups for response in group.responses]
    lengths = torch.tensor([len(response) for response in responses])
    return {
        "targets": torch.tensor(list(chain.from_iterable(responses))),
        "candidate_index": torch.arange(len(responses)).repeat_interleave(lengths),
        "candidates": tuple(len(group.responses) for group in groups),
    }


def row_tokens(group: TokenGroup, layout: RowLayout) -> int:
    """Return the tokens that a group costs in a forward pass, the unit of every token budget."""
    return group.packed_tokens if layout == "shared_prefix" else group.padded_tokens


def plan_batches(groups: Sequence[TokenGroup], token_budget: int, layout: RowLayout) -> list[range]:
    """Cut the groups, in their order, into batches of at most `token_budget` tokens.

    A group larger than the budget makes a batch of its own; `split_group` cuts it where the graph of the
    whole group is not needed. The result is a function of the groups alone.
    """
    batches: list[range] = []
    start, longest, spent = 0, 0, 0
    for number, group in enumerate(groups):
        cost, longest = _cost_with(group, spent, longest, groups[start:number], layout)
        if number > start and cost > token_budget:
            batches.append(range(start, number))
            start = number
            cost, longest = _cost_with(group, 0, 0, (), layout)
        spent = cost
    return [*batches, range(start, len(groups))] if groups else []


def _cost_with(
    group: TokenGroup, spent: int, longest: int, before: Sequence[TokenGroup], layout: RowLayout
) -> tuple[int, int]:
    """Return the tokens of a batch once `group` is added, and the longest sequence in it (padded rows share it)."""
    if layout == "shared_prefix":
        return spent + group.packed_tokens, 0
    longest = max(longest, group.padded_tokens // len(group.responses))
    return longest * sum(len(other.responses) for other in (*before, group)), longest


def split_group(group: TokenGroup, token_budget: int, layout: RowLayout) -> list[TokenGroup]:
    """Cut a group into pieces of consecutive responses, each within the budget or a single response."""
    pieces: list[TokenGroup] = []
    start = 0
    for end in range(1, len(group.responses) + 1):
        whole = end == len(group.responses)
        if whole or row_tokens(TokenGroup(group.prompt, group.responses[start : end + 1]), layout) > token_budget:
            pieces.append(TokenGroup(group.prompt, group.responses[start:end]))
            start = end
    return pieces


def packed_share(groups: Iterable[TokenGroup]) -> float:
    """Return the tokens of the shared-prefix layout as a share of those of padded rows."""
    pairs = [(group.packed_tokens, group.padded_tokens) for group in groups]
    return sum(packed for packed, _ in pairs) / max(1, sum(padded for _, padded in pairs))
