"""Attempts: which is next, which is worth another, and what is kept, on a real run root and a fake cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from steerlm_core import layout
from steerlm_core.errors import StoreError
from steerlm_core.kube.api.client import ClusterError
from steerlm_core.kube.api.own_pod import Workflow
from steerlm_core.kube.api.watch import Snapshot
from steerlm_core.kube.job.failure_classes import TrainJobError
from steerlm_core.kube.job.files import End, Outcome
from steerlm_core.kube.job.spec import ITERATION, RUN, SPEC_HASH, STAGE
from steerlm_core.kube.job.state import JobState
from steerlm_core.kube.launch import launcher as launcher_module
from steerlm_core.kube.launch import submit as submit_module
from steerlm_core.kube.launch.launcher import Launcher
from steerlm_core.platform import BudgetsConfig, TrainJobConfig
from steerlm_core.store import open_store
from steerlm_core.store.run_store import RunStore
from steerlm_core.store.sealed import seal
from tests.kube.fake_api import FakeApi

LABELS = {RUN: "run", ITERATION: "0", STAGE: "train"}


def manifest(attempt: int, name: str = "train", root: str = "s3://bucket/run") -> dict[str, Any]:
    container = {"name": "pytorch", "args": ["--root", root]}
    replica = {"replicas": 1, "template": {"spec": {"containers": [container]}}}
    metadata = {"name": f"{name}-{attempt}", "labels": LABELS, "annotations": {SPEC_HASH: name}}
    return {"metadata": metadata, "spec": {"pytorchReplicaSpecs": {"Master": replica}}}


def condition(kind: str) -> dict[str, Any]:
    return {"status": {"conditions": [{"type": kind, "status": "True", "message": ""}]}}


def failed(end: End) -> dict[str, Any]:
    return {"conditions": condition("Failed"), "outcomes": [Outcome(end=end, message="why", rank=0, pod="p", time=0)]}


SUCCEEDED: dict[str, Any] = {"conditions": condition("Succeeded")}


class View:
    """Shows what each attempt comes to, at once."""

    ends: list[dict[str, Any]]
    now: dict[str, Any]
    log = None
    pods = ()
    outdated = ""

    def __init__(self, api: FakeApi, store: RunStore, job: dict[str, Any], launcher: str, seconds: float) -> None:
        self.job, self.uid = job["metadata"]["name"], job["metadata"]["uid"]
        self._job, self._end = job, self.ends.pop(0)
        View.now = self._end

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""

    def wait(self, seconds: float) -> None:
        """Time passes by itself."""

    def refresh(self) -> None:
        """Nothing to take note of."""

    def observed(self) -> JobState:
        if "gone" in self._end:
            return JobState(None)
        seen = {"outcomes": [], "pods": [], **self._end}
        return JobState(self._job | seen["conditions"], seen["pods"], outcomes=seen["outcomes"])


class Said:
    def __init__(self) -> None:
        self.words: list[str] = []

    def progress(self, done: int, total: int, unit: str) -> None:
        pass

    def metric(self, **values: float) -> None:
        pass

    def warning(self, message: str) -> None:
        self.words.append(message)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return open_store(str(tmp_path))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1_000_000, 10))
    monkeypatch.setattr(launcher_module, "JobWatch", View)
    monkeypatch.setattr(launcher_module.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(submit_module.time, "sleep", lambda seconds: None)


def launched(
    api: FakeApi,
    store: RunStore,
    *ends: dict[str, Any],
    committed: bool | Callable[[], bool] | None = None,
    workflow: Workflow | None = None,
    said: Said | None = None,
    **config: Any,
) -> Said:
    """Run a launcher; the step has its model when a job has succeeded, unless `committed` says otherwise."""
    View.ends, said = list(ends), said or Said()
    settings = TrainJobConfig(budgets=BudgetsConfig(admission=60), **config)

    def there() -> bool:
        if callable(committed):
            return committed()
        return View.now is SUCCEEDED if committed is None else committed

    launcher = Launcher(api, store, settings, manifest, said, committed=there, name="me", workflow=workflow)
    launcher.run()
    return said


def created(api: FakeApi) -> int:
    return api.calls.count("POST pytorchjobs")


def test_a_job_that_succeeds_is_left_alone(store: RunStore) -> None:
    api = FakeApi()
    launched(api, store, SUCCEEDED)
    assert list(api.jobs) == ["train-0"]
    assert not store.exists(layout.job_verdict("train-0"))


def test_success_without_a_model_is_a_failure(store: RunStore) -> None:
    api = FakeApi()
    with pytest.raises(TrainJobError) as error:
        launched(api, store, SUCCEEDED, committed=False)
    assert error.value.kind == "not_committed"
    assert not api.jobs


@pytest.mark.parametrize("end", [{"conditions": condition("Failed")}, {"gone": True}])
def test_a_step_that_has_its_model_is_done_however_its_job_ended(store: RunStore, end: dict[str, Any]) -> None:
    launched(FakeApi(), store, end, committed=True)
    assert not store.exists(layout.job_verdict("train-0"))


def test_an_api_server_that_stays_away_is_given_up_and_the_job_left_to_itself(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(View, "outdated", "refused")
    api = FakeApi()
    with pytest.raises(TrainJobError, match=r"api_unreachable: .*refused; job train-0 goes on") as error:
        launched(api, store, {"conditions": {}}, committed=False)
    assert error.value.kind == "api_unreachable"
    assert not store.exists(layout.job_verdict("train-0"))
    assert list(api.jobs) == ["train-0"]
    launched(api, store, {"conditions": {}}, committed=True)  # the model came meanwhile
    with pytest.raises(TrainJobError, match=r"api_unreachable: .*job train-0 goes on"):
        launched(api, store, {"conditions": {}}, committed=unknown)
    assert list(api.jobs) == ["train-0"]


def unknown() -> bool:
    raise StoreError("refused")


def test_a_store_that_is_gone_takes_no_log_along(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi()

    def committed() -> bool:
        assert not api.jobs  # ended before anybody asks what may take long to answer
        return unknown()

    monkeypatch.setattr(launcher_module, "read_logs", lambda *_: {"p": "its last words"} if api.jobs else {})
    with pytest.raises(TrainJobError, match=r"store_unreachable: .*(?s:.*)its last words") as error:
        launched(api, store, failed(End.STORE_UNREACHABLE), committed=committed)
    assert "Nor can the run root be used: refused" in str(error.value)
    assert not api.jobs
    with pytest.raises(TrainJobError):
        launched(api, store, failed(End.STORE_UNREACHABLE), max_attempts=1)
    assert store.read(layout.job_log("train-0", "p")) == b"its last words"


def test_what_may_succeed_is_tried_again_under_the_next_name(store: RunStore) -> None:
    api = FakeApi()
    said = launched(api, store, failed(End.RETRYABLE), failed(End.ORPHANED), SUCCEEDED)
    assert list(api.jobs) == ["train-2"]
    kinds = [store.document(layout.job_verdict(f"train-{n}"))["class"] for n in (0, 1)]
    assert kinds == ["retryable", "orphaned"]
    assert any("Attempt 1 of 3" in words for words in said.words)


def test_a_pull_that_fails_is_said_at_once_and_waited_for(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1_000_000))
    monkeypatch.setattr(launcher_module.time, "monotonic", lambda: next(clock))
    waits = {"waiting": {"reason": "ErrImagePull", "message": "connection refused"}}
    pod = {
        "metadata": {"name": "train-0-master-0", "uid": "p"},
        "spec": {"containers": [{"name": "pytorch", "image": "some:tag"}]},
        "status": {
            "phase": "Pending",
            "conditions": [{"type": "PodScheduled", "status": "True"}],
            "containerStatuses": [{"name": "pytorch", "state": waits}],
        },
    }
    said = Said()
    with pytest.raises(TrainJobError, match=r"image: .*connection refused") as error:
        launched(FakeApi(), store, {"conditions": {}, "pods": [pod]}, said=said)
    assert error.value.kind == "image"
    words = "job train-0: pod train-0-master-0, container pytorch: ErrImagePull: connection refused (image some:tag)"
    assert said.words == [words]


def test_attempts_come_to_an_end(store: RunStore) -> None:
    api = FakeApi()
    with pytest.raises(TrainJobError, match="That was attempt 2 of 2") as error:
        launched(api, store, *[failed(End.RETRYABLE)] * 2, max_attempts=2)
    assert error.value.kind == "retryable"
    assert created(api) == 2
    assert not api.jobs


def test_attempts_are_counted_from_launcher_to_launcher(store: RunStore) -> None:
    api, lost = FakeApi(), failed(End.RETRYABLE)
    for number, kind in enumerate(("user_error", "lost_node")):
        store.create(layout.job_verdict(f"train-{number}"), seal({"class": kind, "message": "", "time": 0}))
    with pytest.raises(TrainJobError, match="That was attempt 3 of 3"):
        launched(api, store, lost, lost)
    with pytest.raises(TrainJobError, match="That was attempt 3 of 3"):  # who starts the step again has three more
        launched(api, store, lost, lost, lost)
    assert created(api) == 5


def test_what_needs_a_person_is_not_tried_again(store: RunStore) -> None:
    api = FakeApi()
    with pytest.raises(TrainJobError, match="out_of_memory: pod p, container pytorch: why"):
        launched(api, store, failed(End.OUT_OF_MEMORY))
    assert created(api) == 1
    assert not api.jobs


def test_the_next_launcher_goes_on_behind_the_last_verdict(store: RunStore) -> None:
    api = FakeApi()
    with pytest.raises(TrainJobError):
        launched(api, store, failed(End.USER_ERROR))
    launched(api, store, SUCCEEDED)
    assert list(api.jobs) == ["train-1"]


def test_a_job_that_is_there_is_adopted_not_made_again(store: RunStore) -> None:
    api = FakeApi()
    api.request("POST", "pytorchjobs", manifest(0))
    before = api.jobs["train-0"]["metadata"]["uid"]
    launched(api, store, SUCCEEDED)
    assert api.jobs["train-0"]["metadata"]["uid"] == before
    assert created(api) == 2  # the one above, and one that was refused


def test_the_verdict_of_another_launcher_counts(store: RunStore) -> None:
    class Slow(FakeApi):
        def request(self, method: str, path: str, *more: Any, **others: Any) -> Any:
            if method == "POST" and not store.exists(layout.job_verdict("train-0")):
                store.create(
                    layout.job_verdict("train-0"), seal({"class": "lost_node", "message": "theirs", "time": 0})
                )
            return super().request(method, path, *more, **others)

    api = Slow()
    said = launched(api, store, failed(End.USER_ERROR), SUCCEEDED)
    assert any(words.startswith("theirs") for words in said.words)
    assert list(api.jobs) == ["train-1"]


def test_a_job_of_an_earlier_spec_ends_before_the_new_one_starts(store: RunStore) -> None:
    api = FakeApi()
    api.request("POST", "pytorchjobs", manifest(0, "older"))
    said = launched(api, store, SUCCEEDED)
    assert list(api.jobs) == ["train-0"]
    assert "older-0 is for the same step" in said.words[0]
    assert api.calls.index("DELETE older-0") < len(api.calls) - 1 - api.calls[::-1].index("POST pytorchjobs")


def earlier(name: str, **changes: Any) -> dict[str, Any]:
    """A job of iteration 0 where iteration 1 is wanted."""
    return manifest(0, name, changes.pop("root", "s3://bucket/run")) | changes


def test_finished_jobs_of_earlier_iterations_make_way(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi()
    for job in (
        earlier("succeeded", **condition("Succeeded")),
        earlier("failed", **condition("Failed")),
        earlier("running"),
        earlier("copy", root="s3://bucket/copy", **condition("Succeeded")),
    ):
        api.request("POST", "pytorchjobs", job)
    monkeypatch.setitem(LABELS, ITERATION, "1")
    for job in api.jobs.values():
        job["metadata"]["labels"] = {**LABELS, ITERATION: "0"}
    said = launched(api, store, SUCCEEDED)
    assert list(api.jobs) == ["failed-0", "running-0", "copy-0", "train-0"]
    assert not any("made otherwise" in words for words in said.words)


def test_a_job_of_a_copy_of_the_run_is_left_alone(store: RunStore) -> None:
    api = FakeApi()
    api.request("POST", "pytorchjobs", manifest(0, "copy", "s3://bucket/copy"))
    launched(api, store, SUCCEEDED)
    assert list(api.jobs) == ["copy-0", "train-0"]


class InformerOnce:
    """A set that is read once: a Workflow is at work in the namespace `pipelines`, and nothing anywhere else."""

    failed = None

    def __init__(self, api: FakeApi, path: str, changed: Any, **selector: str) -> None:
        there = path == "/apis/argoproj.io/v1alpha1/namespaces/pipelines/workflows"
        self.latest = Snapshot(({"metadata": {"name": "w", "uid": "u"}, "spec": {}},) if there else ())

    def close(self) -> None:
        """Nothing to close."""


def test_a_workflow_is_watched_where_it_is(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher_module, "Informer", InformerOnce)
    api = FakeApi()
    launched(api, store, SUCCEEDED, workflow=Workflow("pipelines", {"name": "w", "uid": "u"}))
    assert list(api.jobs) == ["train-0"]


OURS, THEIRS = ({"kind": "Workflow", "name": uid, "uid": uid} for uid in ("ours", "theirs"))


@pytest.mark.parametrize(
    ("ours", "owners", "left", "words"),
    [
        (True, [OURS], [], "the job was deleted"),
        (True, [], [], "the job was deleted"),
        (True, [THEIRS, OURS], [], "the job was deleted"),  # adopted from a Workflow that has ended
        (True, [OURS, THEIRS], ["train-0"], "left to theirs that has adopted it"),
        (True, None, ["train-0"], "left to a launcher that has adopted it"),  # a laptop's, which has no Workflow
        (False, [OURS], [], "the job was deleted"),  # created, and the answer has not come
        (False, [], ["train-0"], "it has no job"),  # somebody else's, of this name
    ],
)
def test_a_terminated_run_deletes_its_own_job_and_no_other(
    store: RunStore, monkeypatch: pytest.MonkeyPatch, ours: bool, owners: list[Any] | None, left: list[str], words: str
) -> None:
    class Terminated(InformerOnce):
        """Is at work while its launcher submits, and terminated when it watches."""

        latest = property(lambda _: Snapshot(({"metadata": {}, "spec": {"shutdown": "Stop"}},) if api.jobs else ()))

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

    def submit(api: FakeApi, wanted: Any, seconds: float, say: Any, check: Any) -> Any:
        if owners is None:
            wanted["metadata"]["ownerReferences"] = [OURS]
        job = api.request("POST", "pytorchjobs", {"metadata": {"name": "train-0", "ownerReferences": owners or []}})
        if not ours:
            check()
        return job

    api = FakeApi()
    monkeypatch.setattr(launcher_module, "Informer", Terminated)
    monkeypatch.setattr(launcher_module, "submit", submit)
    with pytest.raises(TrainJobError, match=words) as error:
        launched(api, store, {"conditions": {}}, workflow=Workflow("pipelines", OURS))
    assert error.value.kind == "terminated"
    assert list(api.jobs) == left


def test_an_api_server_that_is_away_for_a_moment_is_waited_for(store: RunStore) -> None:
    api = FakeApi()
    api.spoiled["GET"] = [ClusterError("refused"), ClusterError("refused")]
    launched(api, store, SUCCEEDED)
    assert list(api.jobs) == ["train-0"]
