"""The outputs of steps: nothing is done twice, and nobody else's output is taken for one's own."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from steerlm_core import layout
from steerlm_core.config import parse_config
from steerlm_core.errors import ForeignOutputError, RunStateError
from steerlm_core.runtime import run_step
from steerlm_core.steps.output import Output
from steerlm_core.store.manifest import Manifest
from tests.steps.world import World, loop


def test_a_manifest_names_what_its_output_was_made_from(keeping):
    groups = keeping.manifest("iterations/000/groups")
    assert groups.inputs == {
        name: keeping.manifest(f"iterations/000/{name}").content_digest
        for name in ("candidates", "labels", "prior_scores")
    }


def test_a_second_run_of_every_step_does_nothing(world):
    before = world.files()
    for iteration in range(2):
        world.run(*layout.ITERATION_STEPS, iteration=iteration)
    assert world.files() == before


CHANGES = {
    "generate": ("generate", "temperature", 0.9),
    "label": ("label", "beta_concentration", 13.0),
    "score_prior": ("models", "dtype", "bfloat16"),
    "weigh": ("generate", "candidates", 3),
    "train": ("train", "learning_rate", 2e-3),
    "evaluate": ("convergence", "confidence", 0.8),
}


@pytest.mark.parametrize(("step", "change"), CHANGES.items(), ids=CHANGES)
def test_changed_settings_are_refused(world, step, change):
    section, key, value = change
    raw = world.opened.config.model_dump(mode="json")
    raw[section][key] = value
    run = replace(world.opened, config=parse_config(raw, "toy"))
    before = world.files()
    with pytest.raises(ForeignOutputError, match=rf"output of '{step}' was made from other inputs or settings"):
        run_step(run, step, 0)
    assert world.files() == before


def test_settings_of_how_the_work_is_done_may_change(world):
    raw = world.opened.config.model_dump(mode="json")
    raw["max_iterations"], raw["runtime"]["threads"] = 9, 2
    raw["train"] |= {"checkpoint_seconds": 1.0, "token_budget": 512}
    run = replace(world.opened, config=parse_config(raw, "toy"))
    before = world.files()
    run_step(run, "train", 0)
    assert world.files() == before


@pytest.mark.parametrize("step", [name for name in layout.ITERATION_STEPS if name != "decide"])
def test_the_manifest_of_another_run_is_refused(world, step):
    run = replace(world.opened, described={**world.opened.described, "run_id": "other-run"})
    with pytest.raises(RunStateError, match=rf"belongs to run '{world.opened.run_id}', this is run 'other-run'"):
        run_step(run, step, 0)


def test_a_manifest_that_is_damaged_or_missing_is_named(world):
    path = world.root / "iterations/000/labels/manifest.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(RunStateError, match=r"labels/manifest\.json: damaged"):
        world.run("weigh")
    path.unlink()
    with pytest.raises(RunStateError, match=r"labels/manifest\.json: missing.*steerlm resume"):
        world.run("weigh")


def test_a_loop_that_dies_before_every_commit_ends_as_if_it_had_not(keeping, toy, tmp_path, monkeypatch):
    died: set[str] = set()
    honest = Output.commit

    def dies_once(self: Output, **metrics: Any) -> Manifest:
        if self.prefix not in died:
            died.add(self.prefix)
            raise KeyboardInterrupt  # the parts are written, the manifest is not
        return honest(self, **metrics)

    monkeypatch.setattr(Output, "commit", dies_once)
    mine = World(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        loop(mine.root, toy)
    for _ in range(50):
        with suppress(KeyboardInterrupt):  # of dies_once
            loop(mine.root)
            break
    assert len(died) >= 20
    for iteration in range(2):
        for key in (f"iterations/{iteration:03d}/evaluation/evaluation.json", layout.commit(iteration)):
            assert mine.json(key) == keeping.json(key)
    (ours,), (theirs,) = (list((each.root / "confirmation").glob("*/confirmation.json")) for each in (mine, keeping))
    assert ours.read_bytes() == theirs.read_bytes()
