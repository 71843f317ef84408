"""The event stream: what is said arrives, and saying it never harms the work."""

import subprocess
import sys
import threading

import pytest

from steerlm_core.observe.event_file import EventFile
from steerlm_core.observe.event_store import read_events
from steerlm_core.observe.events import Event, EventLog
from steerlm_core.store import open_store


def _kinds(events: list[dict]) -> list[str]:
    return [event["kind"] for event in events]


def test_a_step_says_what_it_did(tmp_path):
    log = EventLog("run-1", EventFile(tmp_path / "events", "local"))
    with log.step("train", 2, shard=1) as says:
        says.progress(1, 10, "steps")
        says.metric(loss=0.5)
        says.warning("look")
    log.close()
    events = read_events(open_store(str(tmp_path)))
    assert _kinds(events) == ["started", "progress", "metric", "warning", "finished"]
    assert all((e["run"], e["iteration"], e["step"], e["shard"]) == ("run-1", 2, "train", 1) for e in events)
    assert events[1]["fields"] == {"done": 1, "total": 10, "unit": "steps"}
    assert events[4]["fields"]["seconds"] >= 0


@pytest.mark.parametrize(
    ("error", "said"),
    [(ValueError("no such thing"), "ValueError: no such thing"), (KeyboardInterrupt(), "interrupted")],
)
def test_a_failed_step_says_so_and_passes_its_error_on(tmp_path, error, said):
    log = EventLog("run-1", EventFile(tmp_path / "events", "local"))
    with pytest.raises(type(error)), log.step("train"):
        raise error
    last = read_events(open_store(str(tmp_path)))[-1]
    assert last["kind"] == "failed"
    assert last["fields"]["error"] == said


def test_progress_is_throttled_but_its_end_always_arrives(tmp_path):
    heard: list[Event] = []
    log = EventLog("run-1", EventFile(tmp_path / "events", "local"), [heard.append])
    with log.step("train") as says:
        for done in range(1, 50_001):
            says.progress(done, 50_000, "steps")
    log.close()
    progress = [event for event in heard if event.kind == "progress"]
    assert len(progress) < 200
    assert progress[-1].fields["done"] == 50_000
    assert read_events(open_store(str(tmp_path)))[-2]["fields"]["done"] == 50_000


def test_an_iteration_carries_evaluation_and_commit(tmp_path):
    log = EventLog("run-1", EventFile(tmp_path / "events", "local"))
    log.iteration({"iteration": 3, "ess_median": 2.5}, {"iteration": 3, "accepted": True, "reason": "fell"})
    (event,) = read_events(open_store(str(tmp_path)))
    assert (event["kind"], event["iteration"]) == ("iteration", 3)
    assert event["fields"] == {"ess_median": 2.5, "accepted": True, "reason": "fell"}


def test_a_broken_listener_is_reported_once_and_left_alone(tmp_path):
    heard: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError("screen gone")

    log = EventLog("run-1", EventFile(tmp_path / "events", "local"), [broken, heard.append])
    with log.step("train") as says:
        says.metric(loss=1.0)
        says.metric(loss=2.0)
    log.close()
    assert [e.kind for e in heard if e.kind != "warning"] == ["started", "metric", "metric", "finished"]
    warnings = [e for e in read_events(open_store(str(tmp_path))) if e["kind"] == "warning"]
    assert len(warnings) == 1
    assert "screen gone" in warnings[0]["fields"]["message"]


def test_threads_may_speak_at_once(tmp_path):
    log = EventLog("run-1", EventFile(tmp_path / "events", "local"))

    def speak(shard: int) -> None:
        with log.step("label", 0, shard) as says:
            for number in range(300):
                says.metric(number=float(number))

    threads = [threading.Thread(target=speak, args=(shard,)) for shard in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert len(read_events(open_store(str(tmp_path)))) == 4 * 302


def test_the_event_stream_needs_no_torch():
    code = "import sys, steerlm_core.observe.display; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
