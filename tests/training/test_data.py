"""Groups to train on: their order, and which are dropped or refused."""

from __future__ import annotations

import math
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from steerlm_core.errors import DataError, NonFiniteError
from steerlm_core.training.data import BatchOrder, load_groups
from steerlm_core.training.run import train
from tests.distributed.world import make_job
from tests.training.groups import shift, tampered


def test_order_visits_every_group_once_an_epoch_and_keeps_the_short_batch() -> None:
    order = BatchOrder(groups=10, batch_groups=4, epochs=2, seed=7)
    epochs = [[order.batch(step) for step in range(3)], [order.batch(step) for step in range(3, 6)]]
    assert order.steps == 6
    assert [len(batch) for batch in epochs[0]] == [4, 4, 2]
    assert [sorted(chain.from_iterable(epoch)) for epoch in epochs] == [list(range(10))] * 2
    assert epochs[0] != epochs[1]
    assert BatchOrder(10, 4, 2, 8).batch(0) != order.batch(0)


def test_groups_without_two_valid_candidates_are_dropped_and_counted(world: tuple[Path, Path], tmp_path: Path) -> None:
    def drop(row: dict[str, Any]) -> None:
        row["valid"] = [False] * (len(row["valid"]) - 1) + [True]

    part = tampered(world[1], tmp_path / "part.parquet", "g001", drop)
    groups, dropped = load_groups((part,))
    assert (len(groups), dropped) == (13, 1)
    whole = pq.read_table(part).to_pylist()
    for group in groups:
        row = next(row for row in whole if row["group_id"] == group.group_id)
        kept = [tuple(ids) for ids, valid in zip(row["responses"], row["valid"], strict=True) if valid]
        assert list(group.tokens.responses) == kept
        assert sum(map(math.exp, group.log_ws)) == pytest.approx(1)
    assert train(make_job(tmp_path, world[0], part)).metrics["dropped_groups"] == 1


def test_unusable_groups_are_refused_by_name(world: tuple[Path, Path], tmp_path: Path) -> None:
    part = tmp_path / "part.parquet"
    with pytest.raises(DataError, match=r"g002: the target weights .* sum to"):
        load_groups((tampered(world[1], part, "g002", shift("log_ws", by=1.0)),))
    with pytest.raises(NonFiniteError, match=r"g002: log_q is"):
        load_groups((tampered(world[1], part, "g002", shift("log_q", by=math.nan)),))
    part.write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"part\.parquet: no readable part"):
        load_groups((part,))
