"""The classes of failure: each says its way out, and none that needs a person is tried again."""

from __future__ import annotations

from steerlm_core.kube.job.failure_classes import PRECEDENCE, REMEDIES, RETRIED


def test_every_class_says_its_way_out() -> None:
    said_by_pods = {"user_error", "non_finite", "out_of_memory"}
    assert {*PRECEDENCE, *RETRIED} - said_by_pods <= REMEDIES.keys()


def test_no_class_that_needs_a_person_is_tried_again() -> None:
    assert not RETRIED & {"out_of_memory", "image", "configuration", "quota", "non_finite", "forbidden", "user_error"}
