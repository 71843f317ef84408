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

# Padding that costs less than another round of kernel calls.
_CHEAP_PAIRS = 1 << 13


@dataclass(frozen=True)
class Part:
    """Groups of similar size, padded to one another for attention.

    Padding of the two index tensors points at token 0; the masks beside them say where it stands.

    Attributes:
        prompts: Row index of every prompt token. [G, P]
        prompt_valid: Which of them are real; None: all. [G, P]
        responses: Row index of every response token fed to the model. [G, N, R]
        response_valid: Which of them are real; None: all. [G, N, R]
    """

    prompts: Tensor
    prompt_valid: Tensor | None
    responses: Tensor
    response_valid: Tensor | None


@dataclass(frozen=True)
class Blocks:
    """Which tokens of a shared-prefix row see which: the block structure of its attention mask.

    Attributes:
        parts: The groups, in parts of similar size: a long group must not pad short ones.
        slots: Where each token of the row stands in the parts' prompts and responses, flattened and joined. [T]
        segments: Number of the prompt or response that a token belongs to. [T]
        parents: Number of the prompt that a token may look back at. [T]
    """

    parts: tuple[Part, ...]
    slots: Tensor
    segments: Tensor
    parents: Tensor

    def to(self, device: torch.device | str) -> Blocks:
        """Return the same blocks on another device."""
        parts = tuple(Part(**_moved(part, device)) for part in self.parts)
        return Blocks(**{**_moved(self, device), "parts": parts})

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
        return PackedBatch(**_moved(self, device))


def _moved(record: Any, device: torch.device | str) -> dict[str, Any]:
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {name: part.to(device) if isinstance(part, Tensor | Blocks) else part for name, part in values.items()}


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
    parts: list[Part] = []
    slots = torch.empty(tokens, dtype=torch.long)
    filled = 0
    for numbers in _similar(prompts, responses):
        index, valid = zip(*_padded_part([prompts[n] for n in numbers], [responses[n] for n in numbers]), strict=True)
        parts.append(Part(index[0], _unless_all(valid[0]), index[1], _unless_all(valid[1])))
        flat_index, flat_valid = (torch.cat([one.flatten() for one in two]) for two in (index, valid))
        slots[flat_index[flat_valid]] = flat_valid.nonzero().flatten() + filled
        filled += len(flat_index)
    return Blocks(tuple(parts), slots, *_segments(prompts, responses))


def _padded_part(prompts: list[range], responses: list[list[range]]) -> list[tuple[Tensor, Tensor]]:
    """Return index and validity of the prompts [G, P] and of the responses [G, N, R]."""
    most = max(len(group) for group in responses)
    index, valid = _pad([fed for group in responses for fed in (*group, *[range(0)] * (most - len(group)))])
    shape = (len(prompts), most, index.shape[1])
    return [_pad(prompts), (index.view(shape), valid.view(shape))]


def _unless_all(valid: Tensor) -> Tensor | None:
    return None if bool(valid.all()) else valid


def _similar(prompts: list[range], responses: list[list[range]]) -> list[list[int]]:
    """Cut the groups, largest first, where padding to the others would more than double a group's attention."""
    sizes = [(len(p), max(map(len, group)), len(group)) for p, group in zip(prompts, responses, strict=True)]
    parts: list[list[int]] = []
    for number in sorted(range(len(sizes)), key=lambda n: _pairs(*sizes[n]), reverse=True):
        joined = [*parts[-1], number] if parts else [number]
        exact = _pairs(*sizes[number])
        padded = _pairs(*(max(sizes[n][side] for n in joined) for side in range(3)))
        if parts and padded <= max(2 * exact, exact + _CHEAP_PAIRS):
            parts[-1] = joined
        else:
            parts.append([number])
    return parts


def _pairs(prompt: int, response: int, count: int) -> int:
    """Return how many (row, column) pairs attention computes for a group, up to the causal half."""
    return prompt**2 + count * response * (response + 2 * prompt)


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
