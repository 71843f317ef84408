"""Steps that work part by part: in one process or split over shards, and from where they were interrupted.

    parts ─► work ─► record      (for each part of this shard that has no record)
    all records ─► manifest      (by whichever shard finds that none is missing)

A record says what became of one part: its output, and the numbers that the manifest sums up. It is made from the
same inputs as the manifest will be, so equal work gives equal records whoever does it. Records go once the manifest
stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from steerlm_core import layout
from steerlm_core.errors import ForeignOutputError, RunStateError, SteerLMError
from steerlm_core.progress import Tell
from steerlm_core.steps.context import StepContext
from steerlm_core.steps.output import Output
from steerlm_core.store.manifest import Manifest, Part
from steerlm_core.store.sealed import seal

Numbers = dict[str, Any]
Work = Callable[[Part, pa.Table, Tell], tuple[pa.Table, Numbers]]


def run_by_part(
    context: StepContext,
    output: Output,
    parts: Sequence[Part],
    unit: str,
    work: Work,
    summarise: Callable[[list[Numbers]], Numbers] = lambda _: {},
) -> Manifest | None:
    """Do this shard's parts, then commit the whole if no other shard is still at work.

    Args:
        context: The step's context.
        output: Where it goes.
        parts: The parts to read, in order.
        unit: What a row of them is, for the display.
        work: Makes a part's table and numbers; a part may take minutes, so it tells how far it is.
        summarise: Makes the manifest's metrics of the parts' numbers, in order; may raise to refuse the whole.

    Returns:
        The manifest, or None where parts of other shards are missing yet.
    """
    mine = [number for number in range(len(parts)) if context.shard.does(number)]
    total, done = sum(parts[number].rows for number in mine), 0
    for number in mine:
        if _record(context, output, number) is None:
            part = parts[number]
            table, numbers = work(part, context.store.read_table(part), within(context, part, done, total, unit))
            _write(context, output, number, table, part.split, numbers)
        done += parts[number].rows
        context.events.progress(done, total, unit)
    keys = [layout.record(output.prefix, number) for number in range(len(parts))]
    found = [record for number in range(len(parts)) if (record := _record(context, output, number)) is not None]
    if len(found) < len(parts):
        return None
    try:
        metrics = summarise([record["numbers"] for record in found])
    except SteerLMError:
        context.store.delete(keys)  # the next attempt starts anew
        raise
    output.add(Part.model_validate(record["part"]) for record in found)
    manifest = output.commit(**metrics)
    context.store.delete(keys)
    return manifest


def within(context: StepContext, part: Part, before: int, total: int, unit: str) -> Tell:
    """Return what turns the progress within a part into that of the step, `before` of whose rows are done."""
    return lambda done, of: context.events.progress(before + part.rows * done // of, total, unit)


def _write(context: StepContext, output: Output, number: int, table: pa.Table, split: str, numbers: Numbers) -> None:
    part = context.store.write_table(output.prefix, number, table, split)
    context.check_lease()
    context.store.create(
        layout.record(output.prefix, number),
        seal({"input_digest": output.input_digest, "part": part.model_dump(mode="json"), "numbers": numbers}),
    )


def _record(context: StepContext, output: Output, number: int) -> dict[str, Any] | None:
    key = layout.record(output.prefix, number)
    try:
        record = context.document(key)
    except RunStateError:
        if context.store.exists(key):
            raise
        return None
    if record["input_digest"] != output.input_digest:
        raise ForeignOutputError(
            f"{context.store.root}/{key}: this part was made from other inputs or settings. Use a new run directory "
            "for the changed configuration, or restore the old one."
        )
    return record
