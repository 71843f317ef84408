"""Whole runs behind a bad network: one request in five fails, or all of them for a while."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from steerlm_core.store import s3
from tests.crash.operations import CAN_FAIL, HARMFUL, check_it_gives_up
from tests.crash.runners import MISTAKE, start
from tests.crash.trials import Trials, wait_until
from tests.services.fault_proxy import FAULTS, FaultProxy
from tests.toy.runs import results

ATTEMPTS = 3
# What broke off in a body is begun again. A runner that fails gives its lease back and writes its last events, which
# fail too; its lease may have been in renewal, and its events in writing.
MOST_REQUESTS = (s3.ATTEMPTS + 4) * ATTEMPTS
_READ_SECONDS = 1.0


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_finds_the_same_when_one_request_in_five_fails(
    trials: Trials, proxy: FaultProxy, bucket: str, fault: str, capsys
) -> None:
    proxy.do(fault, 0.2)
    started = time.monotonic()
    runner = start(
        trials.folder, bucket, trials.config, environment=proxy.environment, waits=0.1, READ_SECONDS=_READ_SECONDS
    )
    assert runner.end() == 0, runner.words
    assert results(bucket) == trials.expected
    assert proxy.done[fault] > 20
    with capsys.disabled():
        print(f"\n{fault}: {proxy.done[fault]} of {proxy.requests} in {time.monotonic() - started:.0f} s")


@pytest.mark.parametrize("fault", HARMFUL)
def test_a_run_whose_every_request_fails_stops_and_goes_on_when_the_fault_is_gone(
    trials: Trials, proxy: FaultProxy, bucket: str, fault: str, capsys
) -> None:
    runner = start(
        trials.folder, bucket, trials.config, READ_SECONDS=_READ_SECONDS,
        environment={**proxy.environment, "AWS_MAX_ATTEMPTS": str(ATTEMPTS)},
    )  # fmt: skip
    wait_until(lambda: any(write.key == "leases/000-label.json" for write in runner.writes), runner)
    proxy.do(fault, 1.0)
    before, started = proxy.requests, time.monotonic()
    assert runner.end() == MISTAKE, runner.words
    asked, took = proxy.requests - before, time.monotonic() - started
    assert asked <= MOST_REQUESTS
    assert "StoreError: " + bucket in runner.words
    with capsys.disabled():
        print(f"\n{fault}: stopped after {asked} requests, in {took:.1f} s: {runner.words.strip()}")
    proxy.do(None)
    trials.resume(bucket, environment=proxy.environment)


@pytest.mark.parametrize(("fault", "operation"), CAN_FAIL)
def test_every_operation_gives_up_whatever_fails(
    proxy: FaultProxy, fault: str, operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_it_gives_up(proxy, fault, operation, tmp_path, monkeypatch)
