"""How one global batch becomes forward passes: who computes what, in how many passes.

    global batch ─► ranks, by tokens ─► passes within the token budget ─► as many passes on every rank

A group that fits the budget is trained in one pass, whole. A larger one is cut into parts: scored
first without a graph, then trained part by part with weights taken from the whole group. Every rank
derives the same plan from the same batch, so that all make equally many passes of each kind; a rank
with less to do runs empty passes, whose rows have no weight. (Under ZeRO-3 a missing pass is a deadlock.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steerlm_core.models.groups import TokenGroup
from steerlm_core.models.packing import RowLayout, row_tokens, split_group


@dataclass(frozen=True)
class Piece:
    """Responses `start` to `stop` of the group at `position` in the global batch."""

    position: int
    start: int
    stop: int

    def of(self, group: TokenGroup) -> TokenGroup:
        """Cut the piece out of its group."""
        return TokenGroup(group.prompt, group.responses[self.start : self.stop])


Pass = tuple[Piece, ...]


@dataclass(frozen=True)
class RankPlan:
    """What one rank does in one step.

    Attributes:
        scored: Passes without a graph: the parts of groups that exceed the budget.
        whole: Passes with a graph over whole groups.
        parts: Passes with a graph over one part each.
    """

    scored: tuple[Pass, ...]
    whole: tuple[Pass, ...]
    parts: tuple[Pass, ...]


def plan_step(groups: Sequence[TokenGroup], world: int, budget: int, layout: RowLayout) -> list[RankPlan]:
    """Return the plan of every rank for one global batch."""
    costs = [row_tokens(group, layout) for group in groups]
    plans = []
    for share in _shares(costs, world):
        large = [position for position in share if costs[position] > budget]
        parts = tuple((piece,) for position in large for piece in _cut(groups[position], position, budget, layout))
        whole = _packed(groups, costs, [position for position in share if costs[position] <= budget], budget)
        plans.append(RankPlan(parts, tuple(whole), parts))
    scored, most = max(len(plan.scored) for plan in plans), max(len(plan.whole) for plan in plans)
    return [RankPlan(_filled(p.scored, scored), _filled(p.whole, most), _filled(p.parts, scored)) for p in plans]


def plan_scoring(groups: Sequence[TokenGroup], world: int, budget: int, layout: RowLayout) -> list[tuple[Pass, ...]]:
    """Return the passes of every rank for scoring groups once, without a graph."""
    return [plan.scored + plan.whole for plan in plan_step(groups, world, budget, layout)]


def _shares(costs: Sequence[int], world: int) -> list[list[int]]:
    """Give each group, the longest first, to the rank that has least to do."""
    load = [0] * world
    shares: list[list[int]] = [[] for _ in range(world)]
    for position in sorted(range(len(costs)), key=lambda index: -costs[index]):
        rank = load.index(min(load))
        shares[rank].append(position)
        load[rank] += costs[position]
    return shares


def _packed(groups: Sequence[TokenGroup], costs: Sequence[int], positions: Sequence[int], budget: int) -> list[Pass]:
    """Fill passes with whole groups: each group goes to the first pass that has room."""
    passes: list[list[Piece]] = []
    room: list[int] = []
    for position in positions:
        slot = next((index for index, free in enumerate(room) if costs[position] <= free), len(passes))
        if slot == len(passes):
            passes.append([])
            room.append(budget)
        passes[slot].append(Piece(position, 0, len(groups[position].responses)))
        room[slot] -= costs[position]
    return [tuple(pieces) for pieces in passes]


def _cut(group: TokenGroup, position: int, budget: int, layout: RowLayout) -> list[Piece]:
    """Cut a group into runs of responses within the budget; a single response is never cut."""
    pieces, start = [], 0
    for part in split_group(group, budget, layout):
        pieces.append(Piece(position, start, start + len(part.responses)))
        start = pieces[-1].stop
    return pieces


def _filled(passes: tuple[Pass, ...], count: int) -> tuple[Pass, ...]:
    return passes + ((),) * (count - len(passes))
