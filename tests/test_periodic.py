"""Work in a thread of its own: when it is done, when for the last time, and that closing never waits for a pause."""

from __future__ import annotations

import threading

from steerlm_core.periodic import AfterChanges, Periodic
from tests.waiting import until

LONG = 3600.0


class Work:
    """Counts how often it is done; where it is held, it waits until it may end."""

    def __init__(self, held: bool = False) -> None:
        self.times = 0
        self.begun, self.may_end = threading.Event(), threading.Event()
        if not held:
            self.may_end.set()

    def __call__(self) -> None:
        self.begun.set()
        assert self.may_end.wait(30)
        self.times += 1


def runs(name: str) -> bool:
    return any(thread.name == name for thread in threading.enumerate())


def test_it_is_done_again_and_again_until_it_is_closed() -> None:
    work = Work()
    periodic = Periodic(work, 0.001, "again").start()
    until("it is done three times", lambda: work.times > 2, 10, 0.001)
    periodic.close()
    assert not runs("again")


def test_the_first_time_is_after_a_pause_or_at_once_or_when_it_is_woken() -> None:
    later, at_once, woken = Work(), Work(), Work()
    started = [
        Periodic(later, LONG, "later").start(),
        Periodic(at_once, LONG, "at once", at_once=True).start(),
        Periodic(woken, LONG, "woken").start(),
    ]
    started[2].wake()
    until("both are done", lambda: (at_once.times, woken.times) == (1, 1), 10, 0.001)
    for each in started:
        each.close()
    assert (later.times, at_once.times, woken.times) == (0, 1, 1)


def test_a_stop_during_the_work_lets_it_end_and_does_not_wait() -> None:
    work = Work(held=True)
    periodic = Periodic(work, LONG, "held", at_once=True).start()
    assert work.begun.wait(10)
    periodic.stop()
    assert work.times == 0
    work.may_end.set()
    periodic.close()
    assert work.times == 1


def test_the_work_itself_may_say_that_it_is_the_last_time() -> None:
    times = []

    def work() -> None:
        times.append(1)
        periodic.stop()

    periodic = Periodic(work, 0.0, "last")
    periodic.start()
    until("the thread ends", lambda: not runs("last"), 10, 0.001)
    assert times == [1]


def test_changes_are_followed_by_the_work_at_once_then_by_one_for_all_of_a_while_and_one_at_the_end() -> None:
    work = Work()
    after = AfterChanges(work, LONG, "changes")
    after.changed()
    until("the first is done at once", lambda: work.times == 1, 10, 0.001)
    for _ in range(5):
        after.changed()
    assert work.times == 1
    after.close()
    assert work.times == 2


def test_without_a_change_nothing_is_done_or_waited_for() -> None:
    work = Work()
    AfterChanges(work, LONG, "changes").close()
    assert work.times == 0
