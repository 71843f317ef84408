"""What is printed about runs that a real Kubeflow has described: `recorded/NAME.txt` has it, word for word.

Neither their cluster nor their root can be asked: what is printed then is all that Kubeflow itself knows.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator

import pytest

from steerlm_core.kubeflow import gone
from tests.services.kfp_recorded import RECORDED, ended, recorded

# The runs, and the moment at which they are looked at: of those that were at work the one of the recording.
LOOKED_AT = {
    "driver-failed": "23:01:00",
    "frozen-succeeded": "23:34:00",
    "just-retried": "23:50:06",
    "retried-succeeded": "23:39:00",
    "running-scheduled": "23:48:11",
    "terminated": "23:44:30",
    "terminated-while-pending": "22:58:00",
    "workflow-deleted": "22:58:00",
}
STATES = ("succeeded", "failed", "terminated", "running", "to be retried")
FOUND = {recorded(name)["run_id"] for name in LOOKED_AT}
DRIVER = "steerlm-v2-l6jqh-system-container-driver-2104543813"  # the pod that `driver-failed.log` is of


@pytest.fixture(autouse=True)
def _utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def shown(steerlm, api, *words: object) -> str:
    """What a command prints, as on a terminal, and its exit code; what differs from time to time has names."""
    done = steerlm("kubeflow", *words)
    text = f"$ steerlm kubeflow {' '.join(str(word) for word in words)}\n{done.out}{done.err}(exit {done.code})\n"
    text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    known = {api.url: "http://KUBEFLOW", **{run: "NEW-RUN" for run in api.runs if run not in FOUND}}
    for found, name in known.items():
        text = text.replace(found, name)
    return text


@pytest.fixture
def transcript(steerlm, api, config, at, monkeypatch):
    """Gives all that is printed of a recorded run."""

    def of(name: str) -> str:
        run_id, run = api.keep_recorded(name), recorded(name)
        api.log[DRIVER] = (RECORDED / "driver-failed.log").read_text()
        at(LOOKED_AT[name])
        monkeypatch.setattr(gone, "ENDING_SECONDS", 0.05)
        texts = [shown(steerlm, api, "status", run_id)]
        api.reports[run_id] = [{}, {}, _end_of(run)]
        texts.append(shown(steerlm, api, "status", run_id, "--wait"))
        api.runs[run_id] = run
        api.reports.clear()
        given = run["runtime_config"]["parameters"]
        where = ("--root", given["root"]) if given.get("root") else ("--base-root", given["base_root"])
        monkeypatch.chdir(config.parent)
        texts.append(shown(steerlm, api, "submit", config.name, *where))
        return "\n".join(texts)

    return of


def _end_of(run):
    """How a run goes on that was at work: it succeeds, with its list as it is; one without a Workflow never ends."""
    if run["state"] == "RUNNING":
        return ended(run, "SUCCEEDED", run["created_at"])
    return _interrupted if run["state"] == "CANCELING" else {}


def _interrupted():
    os.kill(os.getpid(), signal.SIGINT)
    return {}


@pytest.mark.parametrize("name", LOOKED_AT)
def test_what_is_printed_of_a_recorded_run(transcript, name):
    assert transcript(name) == (RECORDED / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", LOOKED_AT)
def test_each_step_stands_once(name):
    """In what the test above holds, so that it cannot be held against something else."""
    for part in (RECORDED / f"{name}.txt").read_text().split("$ steerlm ")[1:3]:
        lines = [re.split(r"  +", line.strip()) for line in part.splitlines()]
        steps = [tuple(line[: line.index(state)]) for line in lines for state in STATES if state in line[1:]]
        assert len(steps) == len(set(steps))
        assert steps or name in ("running-scheduled", "workflow-deleted")
