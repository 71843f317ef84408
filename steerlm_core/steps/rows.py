"""Candidates tables, seen as groups."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pyarrow as pa

from steerlm_core.models.groups import TokenGroup

Row = dict[str, Any]


def by_group(table: pa.Table) -> Iterator[tuple[str, list[Row]]]:
    """Yield (group_id, rows) of a table whose rows of one group stand together."""
    for group_id, rows in groupby(table.to_pylist(), key=lambda row: row["group_id"]):
        yield str(group_id), list(rows)


def token_groups(table: pa.Table, prompt_column: str) -> list[TokenGroup]:
    """Return the groups of a CANDIDATES table as token ids.

    Args:
        table: Rows of CANDIDATES.
        prompt_column: `policy_prompt_ids` or `prior_prompt_ids`.
    """
    return [
        TokenGroup(tuple(rows[0][prompt_column]), tuple(tuple(row["response_ids"]) for row in rows))
        for _, rows in by_group(table)
    ]
