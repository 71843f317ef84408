"""`steerlm run`, `resume` and `step`: from a start to an end, also by way of an interruption."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.in_process import Ended


def _files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("words", [("--backend", "torchrun"), ("--platform", "p.yaml"), ("--display", "log")])
def test_an_option_that_the_pipelines_steps_would_not_hear_of(steerlm, tmp_path, config, monkeypatch, words):
    monkeypatch.setenv("STEERLM_PLATFORM", "of-the-environment.yaml")  # which they do hear of
    ended = steerlm("run", config, "--root", tmp_path / "root", "--runner", "kfp-local", *words)
    assert ended.code == 2
    assert f"{' '.join(words)}: --runner kfp-local does not pass it on" in ended.err
    assert not (tmp_path / "root").exists()


def test_the_platform_of_the_environment_is_heard_of_however_it_is_spelt(steerlm, tmp_path, config, monkeypatch):
    ran = []
    monkeypatch.setattr("steerlm_core.commands.run.work", lambda *_: ran.append(True))
    monkeypatch.setenv("STEERLM_PLATFORM", ".//platform.yaml")
    assert steerlm("run", config, "--root", tmp_path / "root", "--runner", "kfp-local").code == 0
    assert ran


def test_a_run_shows_its_iterations_and_says_how_it_ended(tiny_run):
    root = tiny_run / "root"
    ended = Ended(*json.loads((tiny_run / "shown.json").read_text()))
    assert [line[10:21] for line in ended.err.splitlines() if "distance" in line and " → " in line] == [
        "iteration 0",
        "iteration 1",
    ]
    last = json.loads((root / "iterations/001/commit.json").read_text())
    assert last["reason"][:40] in ended.out
    for word in ("Best policy:", "On fresh candidates", "verbosity", "Time", f"steerlm generate {root}"):
        assert word in ended.out
    assert "\x1b" not in ended.out + ended.err


def test_step_finds_its_work_done(steerlm, root):
    ended = steerlm("step", "weigh", "--root", root, "--iteration", 1)
    assert ended.code == 0
    assert json.loads(ended.out)["groups"] == 14
    unknown = steerlm("step", "wiegh", "--root", root, "--iteration", 1)
    assert unknown.code == 2
    assert "unknown step 'wiegh'" in unknown.err


def test_the_run_directory_of_another_configuration_is_left_alone(steerlm, root, config):
    before = _files(root)
    ended = steerlm("run", config, "--root", root, "--seed", 7)
    assert ended.code == 2
    assert "another configuration" in ended.err
    assert "seed" in ended.err
    assert _files(root) == before


def test_an_interrupted_run_goes_on_and_ends_as_if_it_had_not_been(steerlm, root, config, tmp_path, monkeypatch):
    def interrupt(context):
        raise KeyboardInterrupt

    mine = tmp_path / "mine"
    with monkeypatch.context() as patch:
        patch.setattr("steerlm_core.steps.train.run", interrupt)
        ended = steerlm("run", config, "--root", mine)
    assert ended.code == 130
    assert f"steerlm resume {mine}" in ended.err
    assert "weigh" in steerlm("status", mine).out
    resumed = steerlm("resume", mine)
    assert resumed.code == 0, resumed.err
    for place in ("iterations/001/evaluation/evaluation.json", "iterations/001/commit.json"):
        assert json.loads((mine / place).read_text()) == json.loads((root / place).read_text())


def test_resume_with_more_iterations(steerlm, root, tmp_path):
    mine = tmp_path / "more"
    shutil.copytree(root, mine)
    assert not (mine / "decision.json").exists(), "a run that has decided has no more iterations"
    assert "--max-iterations 3" in steerlm("status", mine).out
    ended = steerlm("resume", mine, "--max-iterations", 3)
    assert ended.code == 0, ended.err
    assert (mine / "iterations/002/commit.json").is_file()


def test_a_root_of_its_own_where_none_is_given(steerlm, config, tmp_path, monkeypatch):
    import steerlm_core.runtime

    monkeypatch.chdir(tmp_path)
    asked: list[str] = []

    def stop(run, *rest):
        asked.append(run.root)
        raise KeyboardInterrupt

    monkeypatch.setattr(steerlm_core.runtime, "run_loop", stop)
    assert steerlm("run", config, "--max-iterations", 1).code == 130
    assert asked[0].startswith(f"runs{os.sep}tiny-20")
