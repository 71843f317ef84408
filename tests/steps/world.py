"""A run root of the toy world, and what the tests of the steps do to it."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from steerlm_core import layout
from steerlm_core.config import RunConfig
from steerlm_core.run import Run
from steerlm_core.runtime import run_step
from steerlm_core.store import open_store
from steerlm_core.store.manifest import Manifest
from steerlm_core.store.sealed import seal
from tests.runs import loop_at, run_at

Change = Callable[[dict[str, Any]], None]


@dataclass
class World:
    """A run root, and what a test does to it."""

    root: Path

    @property
    def opened(self) -> Run:
        return run_at(self.root)

    def run(self, *steps: str, iteration: int = 0) -> dict[str, Any]:
        run = self.opened
        return [run_step(run, step, iteration) for step in steps][-1]

    def manifest(self, prefix: str) -> Manifest:
        return Manifest.model_validate(self.json(f"{prefix}/manifest.json"))

    def rows(self, prefix: str, split: str = "") -> list[dict[str, Any]]:
        parts = [part for part in self.manifest(prefix).parts if split in ("", part.split)]
        return [row for part in parts for row in open_store(str(self.root)).read_table(part).to_pylist()]

    def json(self, key: str) -> dict[str, Any]:
        return open_store(str(self.root)).document(key)

    def undo(self, *outputs: str, iteration: int = 0) -> None:
        """Forget an iteration's outputs, and the commit that rests on them."""
        for name in outputs:
            shutil.rmtree(self.root / f"iterations/{iteration:03d}" / name)
        (self.root / layout.commit(iteration)).unlink(missing_ok=True)

    def tamper(self, prefix: str, change: Change) -> None:
        """Rewrite every row of an output, under a manifest that looks as if the step had written it."""
        store, manifest, parts = open_store(str(self.root)), self.manifest(prefix), []
        for number, part in enumerate(manifest.parts):
            table = store.read_table(part)
            rows = table.to_pylist()
            for row in rows:
                change(row)
            changed = pa.Table.from_pylist(rows, table.schema)
            parts.append(store.write_table(prefix, number, changed, part.split))
        changed_manifest = manifest.model_copy(update={"parts": parts})
        store.put(f"{prefix}/manifest.json", seal(changed_manifest.model_dump(mode="json")))

    def files(self) -> dict[str, tuple[int, int]]:
        """Every file of the run with its size and the time of its last change; but not who was at it."""
        files = (path for path in self.root.rglob("*") if path.is_file())
        found = ((path, path.stat()) for path in files if path.parent.name != "leases" and path.name != ".lock")
        return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in found}


def loop(root: Path, config: RunConfig | None = None, iterations: int | None = None) -> dict[str, Any]:
    return loop_at(root, config, iterations)


def by_group(rows: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    return ((name, list(some)) for name, some in groupby(rows, key=lambda row: row["group_id"]))
