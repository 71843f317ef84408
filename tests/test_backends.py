"""Where training happens is no part of what a run is: the same run goes on elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from steerlm_core.config import RunConfig, parse_config
from steerlm_core.errors import RunStateError
from steerlm_core.run_root import create_or_open_run


def changed(train: dict[str, Any] | None = None, runtime: dict[str, Any] | None = None) -> RunConfig:
    return parse_config(
        {
            "attributes": [{"name": "verbosity"}],
            "raters": {"verbosity": "word_count"},
            "models": {"prior": "embedded:stories"},
            "train": train or {},
            "runtime": runtime or {},
        },
        "test",
    )


def test_a_run_goes_on_with_other_processes_and_another_backend(tmp_path: Path) -> None:
    run = create_or_open_run(str(tmp_path), changed())
    again = changed(
        {"engine": "deepspeed", "processes": 2, "zero_stage": 3, "checkpoint_seconds": 5.0}, {"backend": "torchrun"}
    )
    assert create_or_open_run(str(tmp_path), again).run_id == run.run_id


def test_a_run_does_not_go_on_with_another_learning_rate(tmp_path: Path) -> None:
    create_or_open_run(str(tmp_path), changed())
    with pytest.raises(RunStateError, match=r"differing in: train\.learning_rate\. "):
        create_or_open_run(str(tmp_path), changed({"learning_rate": 0.5, "processes": 2}))
