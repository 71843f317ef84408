"""A world to train in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.world import large_groups, make_policy, token_groups, write_groups


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A policy, and twelve small groups with two that exceed a budget of 64 tokens."""
    root = tmp_path_factory.mktemp("world")
    policy = make_policy(root / "policy")
    groups = token_groups(12)
    groups[5:5] = large_groups(2)
    return policy, write_groups(root / "part-0.parquet", policy, groups)
