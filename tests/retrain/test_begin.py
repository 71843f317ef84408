"""What the pipeline's first step makes of its arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from steerlm_core.begin import begin
from steerlm_core.errors import ConfigError, RunStateError
from steerlm_core.run import open_run
from steerlm_core.runtime import finish
from steerlm_core.store import open_store
from tests.tiny import tiny_settings


def begun(*arguments: Any, **more: Any) -> str:
    """Begin, and return the root of the run."""
    run = begin(*arguments, **more)
    assert run is not None
    return run.root


def test_settings_that_a_run_does_not_take_over_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(tmp_path / "run")
    assert begun(root, "", tiny_settings(), "", "job-1") == root
    assert capsys.readouterr().out == ""
    assert begun(root, "", tiny_settings(max_iterations=5), "", "job-2", max_iterations=5) == root
    assert capsys.readouterr().out == ""
    assert begun(root, "", tiny_settings(max_iterations=5), "", "job-2") == root
    assert "of: max_iterations." in capsys.readouterr().out
    changed = tiny_settings(runtime={"threads": 1, "keep_models": 2})
    assert begun(root, "", changed, "", "job-3") == root
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{root}: the run began with other settings")
    assert line.endswith("of: runtime.keep_models.")


def test_settings_that_an_unfinished_run_under_a_base_root_does_not_take_over_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = begun("", str(tmp_path), tiny_settings(), "", "job-1")
    changed = tiny_settings(max_iterations=5, runtime={"threads": 1, "keep_models": 2})
    for limit, names in ((0, "max_iterations, runtime.keep_models."), (5, "runtime.keep_models.")):
        capsys.readouterr()
        assert begun("", str(tmp_path), changed, "", "job-1", max_iterations=limit) == root
        _, line = capsys.readouterr().out.splitlines()
        assert line == f"{root}: the run began with other settings, and keeps those it has, of: {names}"


def test_a_root_with_another_configuration_is_refused(tmp_path: Path) -> None:
    root = str(tmp_path / "run")
    begun(root, "", tiny_settings(), "", "job-1")
    with pytest.raises(RunStateError, match=r"differing in: seed\."):
        begun(root, "", tiny_settings(seed=2), "", "job-2")


@pytest.mark.parametrize("arguments", [("", ""), ("s3://bucket/run", "s3://bucket/base")])
def test_one_of_root_and_base_root_is_wanted(arguments: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match="give one of the two"):
        begun(*arguments, tiny_settings(), "", "job-1")


def test_without_an_argument_the_configuration_limits_the_iterations(tmp_path: Path) -> None:
    root = begun("", str(tmp_path), tiny_settings(max_iterations=3), "", "job-1", max_iterations=0, room=8)
    open_store(root).put("iterations/002/commit.json", b"{}")
    run = open_run(root)
    assert run.gate(0, 0) == "run"
    assert [run.gate(3, limit) for limit in (0, 3, 4)] == ["stop", "stop", "run"]
    with pytest.raises(RunStateError, match="max_iterations is 3"):
        finish(run, 0)


def test_more_iterations_than_the_pipeline_has_room_for_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    root, settings = tmp_path / "run", tiny_settings(max_iterations=9)
    for place in ((str(root), ""), ("", str(root))):
        with pytest.raises(ConfigError, match=r"max_iterations: 9 is more than the 8 .*compile --max-iterations 9"):
            begun(*place, settings, "", "job-1", max_iterations=0, room=8)
        assert not root.exists()
    assert begun(str(root), "", settings, "", "job-1", max_iterations=8, room=8) == str(root)
    with pytest.raises(ConfigError, match="max_iterations: 9 is more than the 8 "):
        begun(str(root), "", None, "", "job-2", max_iterations=0, room=8)


def test_an_unfinished_run_that_wants_more_iterations_is_not_gone_on_with(tmp_path: Path) -> None:
    begun("", str(tmp_path), tiny_settings(max_iterations=9), "", "job-1", max_iterations=0, room=9)
    with pytest.raises(ConfigError, match="max_iterations: 9 is more than the 8 "):
        begun("", str(tmp_path), tiny_settings(max_iterations=2), "", "job-1", max_iterations=0, room=8)
