"""What every test runs under: one thread, no hub, one cache of base models, and no silent skips in CI."""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.in_process import Steerlm, steerlm_in_process
from tests.once import Once
from tests.services.fault_proxy import FaultProxy, fault_proxy
from tests.services.s3 import BUCKET, S3Server, s3_server

if TYPE_CHECKING:
    from steerlm_core.config import RunConfig
    from tests.toy.runs import Finished

CACHE = Path(__file__).resolve().parent.parent / "build" / "test-cache"

# Before anything imports torch or transformers; processes that tests start inherit it.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
os.environ.setdefault("STEERLM_CACHE", str(CACHE))
# A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """What is made once for all workers of this run."""
    mine = tmp_path_factory.getbasetemp()
    return Once(mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server, started by the first test that asks."""
    with s3_server(tmp_path_factory.mktemp("s3") / "server") as server:
        yield server


@pytest.fixture
def bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run root of its own in the server's bucket; this process's AWS settings lead there."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy before the server, harmless until told otherwise; this process's AWS settings lead to it."""
    with fault_proxy(s3.endpoint) as proxy:
        for name, value in proxy.environment.items():
            monkeypatch.setenv(name, value)
        yield proxy


@pytest.fixture(scope="session")
def toy(once: Once) -> RunConfig:
    """The small form of the toy world."""
    from tests.toy.runs import small_toy

    return small_toy(once)


@pytest.fixture(scope="session")
def finished(once: Once, toy: RunConfig) -> Finished:
    """Gives finished runs of the toy world, by their iterations; to be copied, not to be changed."""
    from tests.toy.runs import finished_runs

    return finished_runs(once, toy)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Reference of a tiny model in a Python package."""
    from tests.packaged import write_package

    return write_package(tmp_path / "packages", monkeypatch)


@pytest.fixture
def steerlm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Steerlm:
    """Runs a command: `steerlm("status", root)`."""
    return steerlm_in_process(monkeypatch, capsys)


@pytest.fixture(autouse=True)
def _one_thread_and_one_print(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a run under test did to torch's threads, and kfp.local to `print`: tasks at once leave theirs there."""
    monkeypatch.setattr("builtins.print", print)
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI a tool that is missing must not pass for a test that ran; a GPU may be missing."""
    if os.environ.get("CI") == "true" and report.skipped and "gpu" not in getattr(report, "keywords", ()):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} would be skipped, and in CI nothing may be: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not hasattr(report, "wasxfail"):
        _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report
