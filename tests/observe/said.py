"""What is said in the tests of displays, and a stream that is a terminal."""

import io

from steerlm_core.observe.display import Display
from steerlm_core.observe.events import EventLog

EVALUATION = {
    "distance_before": {"mean": 0.331, "low": 0.29, "high": 0.37},
    "distance_after": {"mean": 0.122, "low": 0.1, "high": 0.15},
    "ess_median": 3.24,
    "n_candidates": 8,
}
COMMIT = {"iteration": 1, "accepted": True, "kind": "plateau", "reason": "The improvement is surely under 10%."}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def work(display: Display) -> None:
    with display:
        log = EventLog("run-1", None, [display])
        with log.step("prepare"):
            pass
        with log.step("train", 1) as says:
            for done in range(50):
                says.progress(done + 1, 50, "groups")
            says.warning("layout: padded \x1b[31mred")
        log.iteration(EVALUATION, COMMIT)
