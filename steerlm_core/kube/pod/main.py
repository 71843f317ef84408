"""One pod of a training job, from its arguments to its exit code."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import tenacity

from steerlm_core import layout
from steerlm_core.errors import SteerLMError, StoreError, StoreRefusedError
from steerlm_core.kube.job.files import End
from steerlm_core.kube.pod import outcome
from steerlm_core.kube.pod.context import pod_context
from steerlm_core.kube.pod.progress import ProgressWriter
from steerlm_core.kube.pod.stop import HeartbeatWatch, StopRequest
from steerlm_core.kube.pod.torchrun import node_rank, train_node, world_size
from steerlm_core.retry import retry_for
from steerlm_core.run import open_or_create_run
from steerlm_core.steps.context import StepContext
from steerlm_core.steps.train import model_output, train_job
from steerlm_core.store import open_store
from steerlm_core.store.run_store import RunStore
from steerlm_core.training.job import TrainingStoppedError, TrainJob, TrainReport, TrainResult

_TERMINATION_LOG = Path("/dev/termination-log")
_PATIENCE_SECONDS = 300.0  # of a pod without its store, beyond the store's own
# Of a second store, for heartbeats, progress and the outcome: what is asked, or told, again a moment later, and what is
# said on the way out. Where the server is gone, the run's own is at one request for minutes.
_ATTEMPTS = 3
_EXIT_CODES = {End.DONE: 0, End.USER_ERROR: 2, End.STOPPED: 143, End.ORPHANED: 143}

_Answer = TypeVar("_Answer")
_log = logging.getLogger("steerlm.pod")


@dataclass(frozen=True)
class PodTask:
    """What a pod is asked to do.

    Attributes:
        root: The run root.
        iteration: The iteration that is trained.
        job: Name of the job.
        orphan_after: Seconds without a heartbeat after which the job ends itself.
        how: Settings of `train` that say how the work is done.
        node: Rank of this pod's node; the pod of node 0 stores the model.
    """

    root: str
    iteration: int
    job: str
    orphan_after: float
    how: Mapping[str, Any]
    node: int


def main(arguments: Sequence[str] | None = None, termination_log: Path = _TERMINATION_LOG) -> int:
    """Do a pod's part, say how it ended, and return the exit code.

    Args:
        arguments: Of the command line; None: the process's own.
        termination_log: The file that Kubernetes reads the termination message from.
    """
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", stream=sys.stdout)
    logging.getLogger("steerlm").setLevel(logging.INFO)
    stop = StopRequest()
    stop.listen()
    task, told = _task(arguments), None
    try:
        told = open_store(task.root, _ATTEMPTS)
        end = outcome.done(task.node, work(task, told, stop))
    except Exception as error:
        if not isinstance(error, SteerLMError):
            traceback.print_exc()
        stop.settle()
        end = outcome.failed(task.node, error, stop)
    _log.info("%s: %s", end.end.value, end.message)
    outcome.write_outcome(end, told, task.job, termination_log)
    return _EXIT_CODES.get(end.end, 1)


def work(task: PodTask, told: RunStore, stop: StopRequest) -> str:
    """Train this node's part, and store the model where node 0 is; return what was done, in words.

    Args:
        task: What is asked.
        told: The run root, for what the pod and its launcher tell each other.
        stop: Is asked to stop where nobody watches.
    """
    HeartbeatWatch(told, task.job, task.orphan_after, stop)
    store, leads = open_store(task.root), task.node == 0
    _patiently(lambda: store.delete(_of_an_earlier_job(task)))
    run = _patiently(lambda: open_or_create_run(store, None))
    with ExitStack() as stack:
        context = _patiently(lambda: stack.enter_context(pod_context(run, task.iteration, _how(task), leads)))
        output = _patiently(lambda: model_output(context))
        if _patiently(output.existing):
            return "the model is there already"
        place = _patiently(lambda: stack.enter_context(_place(task, context)))
        job = _patiently(lambda: train_job(context, output, place))
        progress = stack.enter_context(ProgressWriter(told, task.job))

        def report(step: int, steps: int, numbers: Mapping[str, float]) -> None:
            progress(step, steps, numbers)
            context.events.progress(step, steps, "steps")
            context.events.metric(**{"step": float(step), **numbers})

        stop.begin()
        _log.info("the inputs are here; training starts")
        result = _train(task, job, stop, report)
        if result is None:
            return "this node's ranks are done"
        _log.info("training is done; storing the model")
        _patiently(lambda: output.write_folder(job.output))
        _patiently(lambda: output.commit(steps=result.steps, **result.metrics))
        shutil.rmtree(job.output)
    return f"{result.steps} steps; {context.store.root}/{layout.manifest(output.prefix)} is committed"


def _train(task: PodTask, job: TrainJob, stop: StopRequest, report: TrainReport) -> TrainResult | None:
    """Train; a store that is gone is an error of its own, so that nothing more is tried with it on the way out."""
    try:
        return train_node(job, task.node == 0, stop, report)
    except TrainingStoppedError as error:
        if stop.end is End.STORE_UNREACHABLE:
            raise StoreError(stop.message) from error
        raise


def _of_an_earlier_job(task: PodTask) -> list[str]:
    """Keys of what an earlier job of the same name has left: it must not pass for this one's."""
    return [layout.job_outcome(task.job, task.node), *([layout.job_progress(task.job)] if task.node == 0 else [])]


@contextmanager
def _place(task: PodTask, context: StepContext) -> Iterator[Path]:
    """Where this node works; only rank 0 reads and writes checkpoints."""
    if task.node == 0:
        with context.store.work_folder(layout.training(context.iteration)) as folder:
            yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="steerlm-") as name:
            yield Path(name)


def _how(task: PodTask) -> dict[str, Any]:
    """Return the settings with the engine that the number of ranks asks for."""
    return {**task.how, **({"engine": "deepspeed"} if world_size(os.environ) > 1 else {})}


def _patiently(action: Callable[[], _Answer]) -> _Answer:
    """Repeat an action on the store until it answers; what it refuses is raised at once."""
    return retry_for(
        _PATIENCE_SECONDS,
        action,
        lambda error, _: isinstance(error, StoreError) and not isinstance(error, StoreRefusedError),
        tenacity.wait_random(1, 5),
        lambda error: _log.warning("%s; trying again", error),
    )


def _task(arguments: Sequence[str] | None) -> PodTask:
    parser = argparse.ArgumentParser(prog="python3 -m steerlm_core.kube.pod", description="A pod of a training job.")
    parser.add_argument("--root", required=True, help="the run root")
    parser.add_argument("--iteration", required=True, type=int, help="the iteration that is trained")
    parser.add_argument("--job", required=True, help="name of the PyTorchJob")
    parser.add_argument("--orphan-after", type=float, default=600.0, help="seconds without a heartbeat")
    parser.add_argument("--how", type=json.loads, default={}, help="settings of `train`, as JSON")
    return PodTask(**vars(parser.parse_args(arguments)), node=node_rank(os.environ))
