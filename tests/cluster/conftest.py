"""One cluster, one S3 server that pods can reach, one image and one prepared run for all tests of this folder."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from steerlm_core import runtime
from steerlm_core.config import RunConfig
from steerlm_core.store import open_store
from steerlm_core.store.copy import copy_run
from tests.cluster.kit import GATEWAY, kubectl, load_image, running_cluster
from tests.cluster.launched import Launched
from tests.cluster.place import Place
from tests.cluster.table import Table
from tests.runs import run_at
from tests.services.s3 import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server, s3_server
from tests.toy.world import build
from tests.waiting import until

_BEFORE = ("generate", "label", "score_prior", "weigh")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def nodes() -> Iterator[None]:
    with running_cluster():
        yield


@pytest.fixture(scope="session")
def cluster(nodes: None) -> None:
    """The nodes, and the image on each."""
    load_image()


@pytest.fixture(scope="session")
def pod_s3(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server at the address where pods reach this machine, and nobody else does."""
    with s3_server(tmp_path_factory.mktemp("s3") / "files", GATEWAY) as server:
        before = {name: os.environ.get(name) for name in server.environment}
        os.environ.update(server.environment)
        yield server
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@pytest.fixture(scope="session")
def place(pod_s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    found = Place(f"steerlm-{uuid.uuid4().hex[:6]}", tmp_path_factory.mktemp("place"), pod_s3.endpoint, keys)
    yield found
    kubectl("delete", "namespace", found.name, "--wait=false")


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """The toy world, small, with a checkpoint after every second."""
    config = build(tmp_path_factory.mktemp("toy"))
    return config.model_copy(
        update={
            "prompts": config.prompts.model_copy(update={"train": 24, "held_out": 8, "prompts_per_part": 16}),
            "train": config.train.model_copy(update={"checkpoint_seconds": 1.0}),
            "max_iterations": 2,
        }
    )


@pytest.fixture(scope="session")
def prepared(toy: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Makes a run that is ready to train, with so many epochs; each is made once."""
    made: dict[int, Path] = {}

    def prepare(epochs: int) -> Path:
        if epochs not in made:
            root = tmp_path_factory.mktemp(f"run-{epochs}")
            config = toy.model_copy(update={"train": toy.train.model_copy(update={"epochs": epochs})})
            run = run_at(root, config)
            runtime.prepare(run)
            for step in _BEFORE:
                runtime.run_step(run, step, 0)
            made[epochs] = root
        return made[epochs]

    return prepare


Launch = Callable[..., Launched]


@pytest.fixture
def launch(place: Place, prepared: Callable[[int], Path], request: pytest.FixtureRequest) -> Iterator[Launch]:
    """Starts a launcher on a fresh copy of a prepared run.

    At the end: half a minute after a launcher has come to its end, good or bad, no pod of its run runs; nobody has told
    a credential, not even in the logs that the run root keeps; and nothing is left.
    """
    kubeconfig, started = place.kubeconfig(), []  # type: Path, list[Launched]
    name = request.node.name.removeprefix("test_")[:40]

    def start(root: str = "", epochs: int = 4, platform: dict[str, Any] | None = None, **environment: str) -> Launched:
        if not root:
            root = f"s3://{BUCKET}/{name}-{uuid.uuid4().hex[:6]}"
            copy_run(open_store(str(prepared(epochs))), open_store(root), lambda done, of, unit: None)
        file = place.platform(name, **(platform or {}))
        launched = Launched(root, file, {"KUBECONFIG": str(kubeconfig), **environment}, place.name)
        started.append(launched)
        return launched

    yield start
    try:
        for launched in started:
            if launched.process.poll() is not None and not launched.killed:
                until("no pod runs", lambda: not launched.running_pods(), 30)  # noqa: B023
            place.tells_no_credential([launched.said, *launched.kept()])
    finally:
        for launched in started:
            launched.process.kill()
            launched.ended(10)
            launched.delete_jobs()


@pytest.fixture(scope="session")
def table() -> Iterator[Table]:
    """Receives what each failure looked like; written to build/cluster-tables.md at the end."""
    found = Table()
    yield found
    found.write()
