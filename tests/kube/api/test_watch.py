"""The current set survives what a watch goes through."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest

from steerlm_core.kube.api import watch as watch_module
from steerlm_core.kube.api.client import ClusterError, ForbiddenError
from steerlm_core.kube.api.watch import Snapshot, snapshots
from tests.kube.fake_api import FakeApi, watch_line


class NoPauses(threading.Event):
    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


def seen(api: FakeApi, count: int) -> list[Snapshot]:
    found: Iterator[Snapshot] = snapshots(api, "/pods", NoPauses(), labelSelector="a=b")
    return list(itertools.islice(found, count))


def uids(snapshot: Snapshot) -> list[str]:
    return [item["metadata"]["uid"] for item in snapshot.items]


def test_changes_are_followed() -> None:
    api = FakeApi()
    api.streams = [[watch_line("ADDED", "a"), watch_line("ADDED", "b"), watch_line("MODIFIED", "a"),
                    watch_line("DELETED", "b")]]  # fmt: skip
    assert [sorted(uids(s)) for s in seen(api, 5)] == [[], ["a"], ["a", "b"], ["a", "b"], ["a"]]
    assert api.queries[0] | {"resourceVersion": "7", "labelSelector": "a=b"} == api.queries[0]


def test_a_watch_goes_on_from_the_last_bookmark_without_a_new_list() -> None:
    api = FakeApi()
    api.streams = [[watch_line("ADDED", "a"), watch_line("BOOKMARK", "", "99")], [watch_line("ADDED", "b")]]
    assert [uids(s) for s in seen(api, 3)] == [[], ["a"], ["a", "b"]]
    assert api.queries[1]["resourceVersion"] == "99"
    assert api.calls == ["GET pods"]


def test_an_expired_version_leads_to_a_new_list() -> None:
    api = FakeApi()
    gone = watch_line("ERROR", code=410, message="too old resource version")
    api.streams = [[watch_line("ADDED", "a"), gone], [watch_line("ADDED", "b")]]
    assert [uids(s) for s in seen(api, 4)] == [[], ["a"], [], ["b"]]
    assert api.calls == ["GET pods", "GET pods"]


@pytest.mark.parametrize("broken", [ClusterError("refused"), b'{"type": "ADD'], ids=["no connection", "half a line"])
def test_a_watch_that_breaks_off_keeps_the_set_and_says_that_it_is_old(broken: bytes | ClusterError) -> None:
    api = FakeApi()
    api.streams = [[watch_line("ADDED", "a"), broken], [watch_line("ADDED", "b")]]
    _, first, old, listed, later = seen(api, 5)
    assert (uids(first), first.error) == (["a"], None)
    assert uids(old) == ["a"]
    assert isinstance(old.error, ClusterError)
    assert (uids(listed), listed.error) == ([], None)
    assert (uids(later), later.error) == (["b"], None)
    assert api.calls == ["GET pods", "GET pods"]


def test_after_a_break_the_set_is_current_again_though_nothing_changes() -> None:
    api = FakeApi()
    quiet: list[bytes | Exception] = [watch_line("BOOKMARK", "", "9")]
    api.streams = [[ClusterError("refused")], *[quiet] * 20, [watch_line("ADDED", "a")]]
    assert [s.error is None for s in seen(api, 4)] == [True, False, True, True]


def test_a_server_that_comes_back_later_is_asked_until_it_answers() -> None:
    api = FakeApi()
    api.spoiled["GET"] = [None, ClusterError("refused"), ClusterError("refused")]
    api.streams = [[ClusterError("refused")]]
    assert [s.error is None for s in seen(api, 5)] == [True, False, False, False, True]


def test_a_server_that_has_just_started_and_knows_no_permissions_is_waited_for() -> None:
    api = FakeApi()
    api.streams = [
        [watch_line("ADDED", "a"), ClusterError("refused")],
        [ForbiddenError("no", 403)],
        [watch_line("DELETED")],
    ]
    *_, denied, again, later = seen(api, 7)
    assert isinstance(denied.error, ForbiddenError)
    assert (again.error, uids(later)) == (None, [])


def test_a_permission_to_list_alone_does_not_keep_a_watch_waiting_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1_000_000, 10))
    monkeypatch.setattr(watch_module.time, "monotonic", lambda: next(clock))
    api = FakeApi()
    api.streams = [[ForbiddenError("no", 403)] for _ in range(100)]
    with pytest.raises(ForbiddenError):
        seen(api, 100)


def test_a_missing_permission_ends_it() -> None:
    api = FakeApi()
    api.spoiled["GET"] = [ForbiddenError("no", 403)]
    with pytest.raises(ForbiddenError):
        seen(api, 1)
