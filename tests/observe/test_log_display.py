"""Structured lines: where a thing was said stands beside it."""

import io
import logging

from steerlm_core.observe.events import EventLog
from steerlm_core.observe.log_display import LogDisplay
from tests.observe.said import COMMIT, EVALUATION
from tests.waiting import until


def test_structured_lines_name_run_iteration_step_and_shard():
    stream = io.StringIO()
    display = LogDisplay(stream)
    with display:
        log = EventLog("run-1", None, [display])
        with log.step("label", 2, shard=3) as says:
            for done in range(30):
                says.progress(done + 1, 30, "groups")
            says.warning('layout: "padded" \x1b[31m\nred')
            says.metric(step=7.0, loss=0.25)
        log.iteration(EVALUATION, COMMIT)
    lines = [line.split(" ", 2)[2] for line in stream.getvalue().splitlines()]
    where = "run=run-1 iteration=2 step=label shard=3"
    assert lines[0] == f"{where} event=started"
    assert lines[1] == f"{where} event=progress done=1 total=30 unit=groups"
    assert lines[2] == f'{where} event=warning message="layout: \\"padded\\" \\\\x1b[31m\\nred"'
    assert lines[3] == f"{where} event=metric optimizer_step=7 loss=0.25"
    assert lines[4].startswith(f"{where} event=finished seconds=")
    assert "distance_after.mean=0.122" in lines[5]
    assert 'reason="The improvement is surely under 10%."' in lines[5]
    assert len(lines) == 6
    assert [line.split(" ")[1] for line in stream.getvalue().splitlines()].count("level=warning") == 1


def test_structured_lines_carry_the_librarys_records_with_the_step_at_work():
    stream = io.StringIO()
    display = LogDisplay(stream)
    display.period = 0.01
    with display, EventLog("run-1", None, [display]).step("train", 1):
        until("the step has started", lambda: "event=started" in stream.getvalue(), 10, 0.01)
        logging.getLogger("steerlm.training").info("continuing from step %d", 7)
    assert (
        'iteration=1 step=train event=log logger=steerlm.training message="continuing from step 7"' in stream.getvalue()
    )
    before = stream.getvalue()
    logging.getLogger("steerlm.training").warning("after the end")
    assert stream.getvalue() == before
