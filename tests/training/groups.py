"""Groups that somebody has tampered with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def tampered(part: Path, target: Path, group: str, change: Any) -> Path:
    rows = pq.read_table(part).to_pylist()
    for row in rows:
        if row["group_id"] == group:
            change(row)
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(part)), target)
    return target


def shift(*keys: str, by: float) -> Any:
    def change(row: dict[str, Any]) -> None:
        for key in keys:
            row[key][-1] += by

    return change
