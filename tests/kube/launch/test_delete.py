"""Deleting a job that is there, or no more."""

from __future__ import annotations

from steerlm_core.kube.launch.delete import delete_and_wait
from tests.kube.fake_api import FakeApi


def test_removing_a_job_that_is_gone_is_no_error() -> None:
    assert delete_and_wait(FakeApi(), "train-1", "uid", 1.0)
