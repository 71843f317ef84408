"""How a pod's end is named, and that its message arrives whole."""

import json

import pytest

from steerlm_core.errors import (
    CaptureError,
    ConfigError,
    NonFiniteError,
    OutOfMemoryError,
    RunStateError,
    StoreError,
    StoreRefusedError,
)
from steerlm_core.kube.job.files import End, Outcome
from steerlm_core.kube.pod.outcome import done, failed, shortened, write_outcome
from steerlm_core.kube.pod.stop import StopRequest
from steerlm_core.store import open_store
from steerlm_core.training.job import TrainingLostError, TrainingStoppedError


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (ConfigError("x"), End.USER_ERROR),
        (RunStateError("x"), End.USER_ERROR),
        (CaptureError("x"), End.USER_ERROR),
        (StoreRefusedError("x"), End.USER_ERROR),
        (StoreError("x"), End.STORE_UNREACHABLE),
        (NonFiniteError("x"), End.NON_FINITE),
        (OutOfMemoryError("x"), End.OUT_OF_MEMORY),
        (TrainingLostError("x"), End.RETRYABLE),
        (TrainingStoppedError("x"), End.STOPPED),
        (OSError("x"), End.RETRYABLE),
    ],
)
def test_each_error_has_its_class(error, end):
    assert failed(0, error, StopRequest()).end is end


def test_after_a_wish_to_stop_consequences_take_its_name_and_causes_keep_theirs():
    stop = StopRequest()
    stop.ask(End.ORPHANED, "nobody watches")
    stop.ask(End.STOPPED, "too late")
    lost = failed(0, TrainingLostError("peer gone"), stop)
    assert (lost.end, lost.message) == (End.ORPHANED, "nobody watches. peer gone")
    assert failed(0, NonFiniteError("x"), stop).end is End.NON_FINITE
    assert failed(0, ConfigError("x"), stop).end is End.USER_ERROR


@pytest.mark.parametrize("text", ["x" * 20_000, "ä" * 20_000, "\n" * 20_000, "short"])
def test_a_termination_message_is_never_cut_by_kubernetes(text):
    kept = shortened(done(0, f"begin {text} end"))
    assert len(kept.to_bytes()) <= 2048
    assert kept.message.startswith("begin")
    assert kept.message.endswith("end")
    assert Outcome.from_bytes(kept.to_bytes(), "termination message") == kept


def test_an_outcome_is_told_in_both_places_and_a_worker_that_is_done_has_nothing_to_tell(tmp_path):
    store = open_store(str(tmp_path / "run"))
    write_outcome(done(0, "x" * 9000), store, "job", tmp_path / "message")
    assert json.loads((tmp_path / "message").read_text())["class"] == "done"
    assert len(Outcome.from_bytes(store.read("jobs/job/outcome.json"), "outcome").message) == 9000
    write_outcome(done(1, "x"), store, "job", tmp_path / "message")
    assert not store.exists("jobs/job/outcome-1.json")
    write_outcome(failed(1, ConfigError("x"), StopRequest()), store, "job", tmp_path / "message")
    assert Outcome.from_bytes(store.read("jobs/job/outcome-1.json"), "outcome").end is End.USER_ERROR
