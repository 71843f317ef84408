"""A run root, on a disk and in a bucket."""

from pathlib import Path

import pytest

from steerlm_core.store import open_store
from steerlm_core.store.run_store import RunStore


@pytest.fixture(params=["disk", "bucket"])
def store(request, tmp_path: Path) -> RunStore:
    root = str(tmp_path / "root") if request.param == "disk" else request.getfixturevalue("bucket")
    return open_store(root)


@pytest.fixture
def disk(tmp_path: Path) -> RunStore:
    return open_store(str(tmp_path / "root"))
