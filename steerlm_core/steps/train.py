"""train: the training groups of an iteration make the next policy.

The step itself only finds out what there is to do; where it is done is the backend's business
(this process, processes of this machine, a PyTorchJob): a backend is given the context and leaves the
model committed. The backend decides the engine; either gives the same model.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from steerlm_core import layout
from steerlm_core.steps.context import StepContext
from steerlm_core.steps.output import Output
from steerlm_core.store.manifest import Manifest
from steerlm_core.training.job import TrainJob, TrainResult


def run(context: StepContext) -> Manifest:
    """Train the iteration's model, by the backend of the context; returns the manifest of the model."""
    assert context.train_backend is not None
    return model_output(context).existing() or context.train_backend.train(context)


def model_output(context: StepContext) -> Output:
    """The output of training: the model of the iteration."""
    stage, config = context.here, context.config
    groups, policy = context.manifest(layout.stage_output(stage.prefix, "groups")), context.manifest(stage.policy)
    return Output(
        context,
        "train",
        layout.policy_model(context.iteration),
        {"groups": groups.content_digest, "policy": policy.content_digest},
        {"train": config.train.model_dump(mode="json", exclude=set(config.train.HOW)),
         "seed": config.seed, "draw": stage.draw, "dtype": config.models.dtype},
    )  # fmt: skip


def train_job(context: StepContext, output: Output, work: Path) -> TrainJob:
    """Bring everything that training needs to this machine; it works in the folder `work`."""
    stage, config = context.here, context.config
    groups = context.manifest(layout.stage_output(stage.prefix, "groups")).of_split("train")
    return TrainJob(
        policy=context.store.local_folder(context.manifest(stage.policy)),
        groups=tuple(context.store.local_file(part) for part in groups),
        output=work / layout.unfinished_model(uuid.uuid4().hex[:8]),  # a stalled runner that wakes up writes to its own
        checkpoints=work / layout.CHECKPOINTS,
        config=config.train,
        generate=config.generate,
        dtype=config.models.dtype,
        seed=config.seed * 100_003 + stage.draw,
        digest=output.input_digest,
    )


class LocalBackend:
    """Trains in this process."""

    def train(self, context: StepContext) -> Manifest:
        """Train, store the model, and commit it."""
        from steerlm_core.training.run import train

        return _train_here(context, "single", train)


class TorchrunBackend:
    """Trains in processes of this machine, started by torchrun."""

    def train(self, context: StepContext) -> Manifest:
        """Train, store the model, and commit it."""
        from steerlm_core.training.launch import run_torchrun

        return _train_here(context, "deepspeed", run_torchrun)


def _train_here(context: StepContext, engine: str, train_by: Callable[..., TrainResult]) -> Manifest:
    checked = time.monotonic()

    def report(step: int, steps: int, numbers: Mapping[str, float]) -> None:
        nonlocal checked
        if (
            time.monotonic() - checked > context.config.runtime.lease_seconds
        ):  # or else it trains to the end for nothing
            context.check_lease()
            checked = time.monotonic()
        context.events.progress(step, steps, "steps")
        context.events.metric(**{"step": float(step), **numbers})

    output = model_output(context)
    with context.store.work_folder(layout.training(context.iteration)) as work:
        job = train_job(context, output, work)
        job = replace(job, config=job.config.model_copy(update={"engine": engine}))
        result = train_by(job, report=report)
        output.write_folder(job.output)
        manifest = output.commit(steps=result.steps, **result.metrics)
        shutil.rmtree(job.output)
    return manifest
