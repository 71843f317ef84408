"""What befalls a job while it trains: it goes on where that helps, and says why where it does not."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import pytest

from steerlm_core.store import open_store
from tests.cluster.conftest import Launch
from tests.cluster.kit import GATEWAY, kit, kubectl
from tests.cluster.launched import Launched
from tests.cluster.place import Place
from tests.cluster.table import Table
from tests.services.proxy import Proxy, proxy
from tests.services.s3 import S3Server
from tests.waiting import until

JOB = r"job train-\w+-\d+"
ENDLESS = 100_000  # epochs
LONG = 600  # epochs: 1800 steps, half a minute on a quiet machine, so that nothing befalls a job too late
ENOUGH = 400  # epochs: 1200 steps, where nothing but the launcher or the API server is disturbed


def names(launched: Launched) -> list[str]:
    return [job["metadata"]["name"] for job in launched.jobs()]


def words(launched: Launched, pattern: str) -> str:
    at = launched.wait_for(pattern, 1)
    line = next(line for when, line in launched.lines if when == at)
    return line.split(" is over: ", 1)[-1]


def model(launched: Launched) -> list[tuple[str, str]]:
    """Names and hashes of the model's files: equal for equal weights."""
    store = open_store(launched.root)
    parts = store.document("iterations/000/model/manifest.json")["parts"]
    return sorted((part["key"].rsplit("/", 1)[-1], part["sha256"]) for part in parts)


def verdicts(launched: Launched) -> list[str]:
    """Classes of the attempts that are over, as the run root keeps them."""
    store = open_store(launched.root)
    keys = [found.key for found in store.listing("jobs/") if found.key.endswith("/verdict.json")]
    return [store.document(key)["class"] for key in sorted(keys)]


def kept_logs(launched: Launched) -> list[str]:
    """Names of the pods whose logs the run root keeps."""
    found = (file.key for file in open_store(launched.root).listing("jobs/") if "/logs/" in file.key and file.size)
    return sorted(key.rsplit("/", 1)[-1].removesuffix(".log") for key in found)


def goes_on_after(launched: Launched, start: float, kind: str, seconds: float = 300) -> tuple[str, float]:
    """Wait until the next attempt has ended well; return what was said of the first, and how soon."""
    noticed = launched.wait_for(rf"{JOB} is over: {kind}", 120) - start
    assert launched.ended(seconds) == 0, launched.said
    assert "continuing from" in launched.said, launched.said
    return words(launched, rf"{JOB} is over: {kind}"), noticed


def test_worker_pod_deleted(launch: Launch, place: Place, table: Table) -> None:
    launched = launch(epochs=LONG)
    launched.wait_for_step(10)
    start = time.monotonic()
    kubectl("-n", place.name, "delete", "pod", f"{names(launched)[0]}-worker-0", "--wait=false")
    message, seconds = goes_on_after(launched, start, "pod_deleted")
    table.row("a worker pod is deleted", "pod_deleted", message, seconds, "next attempt goes on from the checkpoint")


def test_training_process_killed(launch: Launch, place: Place, table: Table) -> None:
    launched = launch(epochs=LONG)
    launched.wait_for_step(10)
    start = time.monotonic()
    pod = f"{names(launched)[0]}-worker-0"
    find = "import glob,os,signal;[os.kill(int(p.split('/')[2]),9) for p in glob.glob('/proc/[0-9]*/cmdline') "
    find += "if b'training.launch' in open(p,'rb').read() and b'distributed.run' not in open(p,'rb').read()]"
    kubectl("-n", place.name, "exec", pod, "-c", "pytorch", "--", "python3", "-c", find)
    message, seconds = goes_on_after(launched, start, "retryable")
    assert kept_logs(launched) == [pod.replace("worker", "master"), pod]
    then = "next attempt goes on from the checkpoint"
    table.row("a training process is killed (-9)", "retryable", message, seconds, then)


@pytest.fixture
def cut_node_2() -> Iterator[Callable[[], None]]:
    """Cuts off the node that the operator is not on; it is there again at the end."""
    cut = []

    def stop() -> None:
        cut.append(True)
        kit("stop-node", "2")

    yield stop
    if cut:
        kit("start-node", "2")
        until("node 2", lambda: "True" in kubectl("get", "node", "node-2", "-o", _READY), 90)


_READY = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"


def test_power_cut_of_a_node(launch: Launch, cut_node_2: Callable[[], None], table: Table) -> None:
    undisturbed = launch(epochs=LONG)
    assert undisturbed.ended(300) == 0, undisturbed.said
    launched = launch(epochs=LONG)
    launched.wait_for_step(10)
    start = time.monotonic()
    cut_node_2()
    message, seconds = goes_on_after(launched, start, "lost_node", 400)
    then = "next attempt goes on elsewhere, from the checkpoint, to the same weights"
    table.row("power cut of a node", "lost_node", message, seconds, then)
    assert {pod["spec"]["nodeName"] for pod in launched.pods() if pod["status"]["phase"] == "Succeeded"} == {"node-1"}
    assert model(launched) == model(undisturbed)


def test_api_server_killed_and_started_again(launch: Launch, table: Table) -> None:
    launched = launch(epochs=ENOUGH)
    launched.wait_for_step(3)
    kit("stop-api")
    start = time.monotonic()
    try:
        seconds = max(0.0, launched.wait_for("the API server does not answer", 60) - start)
    finally:
        kit("start-api")
    assert launched.ended(300) == 0, launched.said
    assert len(launched.jobs()) == 1
    assert not verdicts(launched)
    assert "training is done" in launched.said  # the master's log was followed on
    message = next(line for _, line in launched.lines if "the API server does not answer" in line)
    table.row("the API server is killed", "", message, seconds, "watches on when it is back; the job was not touched")


def test_launcher_killed_and_started_again_adopts(launch: Launch, table: Table) -> None:
    first = launch(epochs=ENOUGH)
    first.wait_for_step(3)
    (before,) = first.jobs()
    first.kill()
    second = launch(first.root, epochs=ENOUGH)
    assert second.ended(300) == 0, second.said
    (after,) = second.jobs()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    table.row("the launcher is killed (-9), and started again", "", "", None, "adopts the job; one was ever created")


def test_two_launchers_at_once_make_one_job(launch: Launch, table: Table) -> None:
    first = launch()
    second = launch(first.root)
    (created,) = until("a job", first.jobs, 60)
    assert (first.ended(300), second.ended(300)) == (0, 0), first.said + second.said
    assert [job["metadata"]["uid"] for job in first.jobs()] == [created["metadata"]["uid"]]
    table.row("two launchers of one step", "", "", None, "one job; the second waits for the first")


def test_job_deleted_by_somebody(launch: Launch, place: Place, table: Table) -> None:
    launched = launch(epochs=ENDLESS)
    launched.wait_for_step(3)
    start = time.monotonic()
    kubectl("-n", place.name, "delete", "pytorchjob", names(launched)[0], "--wait=false")
    seconds = launched.wait_for(rf"{JOB} is over: job_deleted", 60) - start
    assert launched.ended(60) == 2
    until("no pod runs", lambda: not launched.running_pods(), 30)
    table.row("the job is deleted by somebody", "job_deleted", launched.lines[-1][1], seconds, "ends")


@pytest.fixture
def store_proxy(pod_s3: S3Server) -> Iterator[Proxy]:
    with proxy(pod_s3.endpoint, GATEWAY) as found:
        yield found


def test_object_store_gone_for_a_minute(launch: Launch, store_proxy: Proxy, table: Table) -> None:
    platform = {"endpoint": store_proxy.endpoint}
    launched = launch(epochs=LONG, platform=platform, AWS_ENDPOINT_URL_S3=store_proxy.endpoint)
    launched.wait_for_step(3)
    store_proxy.close()
    time.sleep(60)  # what the test is about
    store_proxy.open()
    assert launched.ended(300) == 0, launched.said
    assert not verdicts(launched)
    table.row("the object store is gone for 60 s", "", "", None, "training goes on meanwhile; nothing is lost")


def test_object_store_gone_for_good(launch: Launch, store_proxy: Proxy, place: Place, table: Table) -> None:
    platform = {"endpoint": store_proxy.endpoint, "orphan_after_seconds": 20, "budgets": {"silence": 40}}
    here = {"AWS_ENDPOINT_URL_S3": store_proxy.endpoint, "AWS_MAX_ATTEMPTS": "3"}  # so that the launcher ends sooner
    launched = launch(epochs=ENDLESS, platform=platform, **here)
    launched.wait_for_step(3)
    start = time.monotonic()
    store_proxy.close()
    seconds = launched.wait_for(rf"{JOB} is over: store_unreachable", 120) - start
    assert launched.ended(300) == 2
    assert "store_unreachable" in launched.said
    until("no pod runs", lambda: not launched.running_pods(), 30)
    message = words(launched, rf"{JOB} is over: store_unreachable")
    table.row("the object store is gone for good", "store_unreachable", message, seconds, "ends; a later run goes on")


def test_sigterm_leaves_the_job_to_a_successor(launch: Launch, table: Table) -> None:
    first = launch(epochs=ENOUGH)
    first.wait_for_step(3)
    (before,) = first.jobs()
    first.kill(signal.SIGTERM)
    assert first.ended(20) != 0
    assert "stopped by SIGTERM; job" in first.said
    second = launch(first.root, epochs=ENOUGH)
    assert second.ended(300) == 0, second.said
    (after,) = second.jobs()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    table.row("SIGTERM to the launcher", "", first.lines[-1][1], None, "the job goes on; a successor adopts it")


def test_orphan_ends_itself_with_a_checkpoint(launch: Launch, table: Table) -> None:
    platform = {"orphan_after_seconds": 15}
    launched = launch(epochs=ENDLESS, platform=platform)
    launched.wait_for_step(3)
    start = time.monotonic()
    launched.kill(signal.SIGTERM)
    assert launched.ended(20) != 0
    until("the orphan has ended", lambda: not launched.running_pods(), 60)
    seconds = time.monotonic() - start
    step = launched.step()
    successor = launch(launched.root, platform=platform)
    successor.wait_for(rf"{JOB} is over: orphaned", 60)
    successor.wait_for("continuing from", 120)
    successor.wait_for_step(step + 1, attempt=1)
    message = words(successor, rf"{JOB} is over: orphaned")
    then = "writes a checkpoint and ends itself after `orphan_after_seconds` (15 here)"
    table.row("no launcher watches", "orphaned", message, seconds, then)
