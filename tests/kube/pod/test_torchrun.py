"""Ranks that run out of memory, by the kernel's word and by their own."""

import json

import pytest

from steerlm_core.kube.pod import torchrun
from steerlm_core.training import launch


@pytest.mark.parametrize(
    "text", ["low 0\nhigh 0\nmax 3\noom 2\noom_kill 2\n", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"]
)
def test_kills_are_read_from_either_version_of_the_cgroup(tmp_path, monkeypatch, text):
    (tmp_path / "events").write_text(text)
    monkeypatch.setattr(torchrun, "_CGROUPS", (tmp_path / "none", tmp_path / "events"))
    assert torchrun.oom_kills() == 2


def test_a_rank_that_runs_out_of_memory_says_so(tmp_path, monkeypatch):
    """A real allocation that cannot be made, where a rank would make it."""
    monkeypatch.setattr(launch, "end_with_parent", lambda: None)  # this process is no rank
    monkeypatch.setattr("steerlm_core.training.run.train", lambda job, report: bytearray(1 << 60))
    assert launch._train_here(None, tmp_path) == 2
    kind, message = json.loads((tmp_path / "error-0.json").read_text())
    assert kind == "OutOfMemoryError"
    assert "train.token_budget" in message
