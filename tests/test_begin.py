"""What the pipeline's first step makes of its arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from steerlm_core.errors import ConfigError, RunStateError
from steerlm_core.runtime import begin
from tests.tiny import tiny_settings


def test_settings_that_a_run_does_not_take_over_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(tmp_path / "run")
    assert begin(root, "", tiny_settings(), "", "job-1") == root
    assert capsys.readouterr().out == ""
    assert begin(root, "", tiny_settings(max_iterations=5), "", "job-2") == root
    assert capsys.readouterr().out == ""
    changed = tiny_settings(runtime={"threads": 1, "keep_models": 2})
    assert begin(root, "", changed, "", "job-3") == root
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{root}: the run began with other settings")
    assert line.endswith("of: runtime.keep_models.")


def test_a_root_with_another_configuration_is_refused(tmp_path: Path) -> None:
    root = str(tmp_path / "run")
    begin(root, "", tiny_settings(), "", "job-1")
    with pytest.raises(RunStateError, match=r"differing in: seed\."):
        begin(root, "", tiny_settings(seed=2), "", "job-2")


@pytest.mark.parametrize("arguments", [("", ""), ("s3://bucket/run", "s3://bucket/base")])
def test_one_of_root_and_base_root_is_wanted(arguments: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match="give one of the two"):
        begin(*arguments, tiny_settings(), "", "job-1")
