"""DeepSpeed: imported in one place, when it is called, and in the version that was looked at."""

from __future__ import annotations

from pathlib import Path


def test_only_the_deepspeed_engine_imports_deepspeed_and_only_when_called() -> None:
    """Its import is slow, and prints; one process needs neither."""
    for path in Path("steerlm_core").rglob("*.py"):
        at_top = [line for line in path.read_text().splitlines() if line.startswith(("import ", "from "))]
        assert not any("deepspeed" in line for line in at_top), path
        assert "import deepspeed" not in path.read_text() or path.name == "deepspeed_engine.py", path


def test_the_switch_that_keeps_deepspeed_from_compiling_still_exists() -> None:
    """`start_processes` flips a private name: a new version has to be looked at first."""
    import deepspeed

    assert deepspeed.__version__.split("+")[0] == "0.19.8"
    assert "deepspeed_shm_comm" in deepspeed.ops.__compatible_ops__
