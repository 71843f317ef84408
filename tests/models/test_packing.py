"""Rows, positions, segments and batches: pure index work, checked on hand-made groups."""

from __future__ import annotations

import pytest
import torch

from steerlm_core.errors import DataError
from steerlm_core.models import packing
from steerlm_core.models.groups import TokenGroup
from steerlm_core.models.packing import pack, packed_share, plan_batches, row_tokens, split_group

TWO = [TokenGroup((1, 2, 3), ((4, 5, 6), (7,), (8, 9))), TokenGroup((10, 11), ((12, 13),))]


def test_a_shared_row_holds_each_prompt_once_and_no_last_tokens():
    batch = pack(TWO, "shared_prefix")
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 8, 10, 11, 12]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 0, 1, 2]]
    assert batch.attention_mask is None


def test_the_last_prompt_token_predicts_every_first_token():
    batch = pack(TWO, "shared_prefix")
    assert batch.targets.tolist() == [4, 5, 6, 7, 8, 9, 12, 13]
    assert batch.rows.tolist() == [2, 3, 4, 2, 2, 5, 7, 8]
    assert batch.candidate_index.tolist() == [0, 0, 0, 1, 2, 2, 3, 3]
    assert batch.candidates == (3, 1)


def test_padded_rows_are_padded_on_the_right():
    batch = pack(TWO, "padded")
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5], [1, 2, 3, 0, 0], [1, 2, 3, 8, 0], [10, 11, 12, 0, 0]]
    assert batch.attention_mask is not None
    assert batch.attention_mask.sum(1).tolist() == [5, 3, 4, 3]
    assert batch.rows.tolist() == [2, 3, 4, 7, 12, 13, 16, 17]


def test_both_layouts_predict_the_same_targets_from_the_same_context():
    for layout in ("shared_prefix", "padded"):
        batch = pack(TWO, layout)
        assert batch.position_ids.expand_as(batch.input_ids).flatten()[batch.rows].tolist() == [2, 3, 4, 2, 2, 3, 1, 2]


def test_padding_is_left_out_where_there_is_none():
    assert pack([TokenGroup((1,), ((2, 3), (4, 5)))], "padded").attention_mask is None
    blocks = pack([TokenGroup((1,), ((2, 3), (4, 5)))], "shared_prefix").blocks
    assert blocks is not None
    assert blocks.parts[0].prompt_valid is None
    assert blocks.parts[0].response_valid is None


def test_the_mask_lets_a_response_see_its_prompt_and_itself_only():
    blocks = pack(TWO, "shared_prefix").blocks
    assert blocks is not None
    sees = [[int(column) for column in row.nonzero()[:, 0]] for row in blocks.dense_mask()[0, 0]]
    assert sees == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 5], [6], [6, 7], [6, 7, 8]]


@pytest.mark.parametrize("cheap", [0, 1 << 15])
def test_slots_lead_every_token_to_its_place_in_the_parts(monkeypatch, cheap):
    monkeypatch.setattr(packing, "_CHEAP_PAIRS", cheap)
    batch = pack([*TWO, TokenGroup((1,) * 9, ((2,) * 9, (3,) * 7))], "shared_prefix")
    blocks = batch.blocks
    assert blocks is not None
    assert len(blocks.parts) == (3 if cheap == 0 else 1)
    places = torch.cat([index.flatten() for part in blocks.parts for index in (part.prompts, part.responses)])
    assert places[blocks.slots].tolist() == list(range(batch.input_ids.shape[1]))


def test_a_long_group_does_not_pad_short_ones():
    groups = [TokenGroup((1,) * 20, ((2,) * 12,) * 8) for _ in range(9)]
    groups.insert(4, TokenGroup((1,) * 900, ((2,) * 300,) * 8))
    blocks = pack(groups, "shared_prefix").blocks
    assert blocks is not None
    assert [tuple(part.prompts.shape) for part in blocks.parts] == [(1, 900), (9, 20)]
    assert [tuple(part.responses.shape) for part in blocks.parts] == [(1, 8, 299), (9, 8, 11)]
    assert all(part.prompt_valid is None and part.response_valid is None for part in blocks.parts)


@pytest.mark.parametrize("group", [TokenGroup((), ((1,),)), TokenGroup((1,), ((1,), ())), TokenGroup((1,), ())])
def test_empty_prompts_and_responses_are_refused(group):
    with pytest.raises(DataError, match="group 1: "):
        pack([TWO[0], group], "shared_prefix")


@pytest.mark.parametrize("layout", ["shared_prefix", "padded"])
def test_batches_keep_the_order_fill_the_budget_and_never_exceed_it(layout):
    groups = [
        TokenGroup((1,) * p, ((2,) * r,) * n) for p, r, n in [(3, 2, 2), (9, 1, 3), (2, 2, 2), (1, 1, 1), (5, 9, 4)]
    ]
    batches = plan_batches(groups, 40, layout)
    assert [number for batch in batches for number in batch] == list(range(5))
    assert batches == plan_batches(list(groups), 40, layout)
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        inside = [groups[number] for number in batch]
        assert _cost(inside, layout) <= 40 or len(batch) == 1
        assert following is None or _cost([*inside, groups[following.start]], layout) > 40
    assert len(batches) > 1


def _cost(groups, layout):
    if layout == "shared_prefix":
        return sum(group.packed_tokens for group in groups)
    rows = sum(len(group.responses) for group in groups)
    return rows * max(len(group.prompt) + len(y) for group in groups for y in group.responses)


@pytest.mark.parametrize("layout", ["shared_prefix", "padded"])
def test_a_large_group_is_split_into_consecutive_pieces_within_the_budget(layout):
    group = TokenGroup((1, 2), ((3,) * 3, (4,) * 2, (5,) * 9, (6,), (7,) * 2))
    pieces = split_group(group, 12, layout)
    assert tuple(y for piece in pieces for y in piece.responses) == group.responses
    assert all(row_tokens(piece, layout) <= 12 or len(piece.responses) == 1 for piece in pieces)
    assert 1 < len(pieces) < 5
    assert split_group(group, 1000, layout) == [group]


@pytest.mark.parametrize("layout", ["shared_prefix", "padded"])
def test_a_batch_may_fill_the_budget_to_the_last_token(layout):
    groups = [TokenGroup((1,) * 3, ((2,) * 2,) * 2)] * 4
    full = 2 * row_tokens(groups[0], layout)
    assert [len(batch) for batch in plan_batches(groups, full, layout)] == [2, 2]
    assert [len(batch) for batch in plan_batches(groups, full - 1, layout)] == [1, 1, 1, 1]


def test_the_share_of_tokens_is_what_packing_saves():
    assert packed_share([TokenGroup((1,) * 8, ((2,) * 2,) * 4)]) == 16 / 40
