"""Experiment trackers as readers of the event stream: TensorBoard and MLflow, where their packages are installed.

Both get the numbers of every training step, by iteration, and of the loop, by iteration; MLflow also the configuration.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

from steerlm_core.config import RunConfig
from steerlm_core.dotted import dotted
from steerlm_core.errors import ConfigError
from steerlm_core.observe.events import Event
from steerlm_core.observe.reader import Reader

_LONGEST_PARAMETER = 500


def make_trackers(config: RunConfig, run_id: str) -> list[Reader]:
    """Return the trackers that `runtime` asks for.

    Raises:
        ConfigError: A package is not installed.
    """
    found: list[Reader] = []
    if config.runtime.tensorboard is not None:
        writer = _module("torch.utils.tensorboard", "tensorboard").SummaryWriter
        found.append(TensorBoard(writer, f"{config.runtime.tensorboard}/{run_id}"))
    if config.runtime.mlflow is not None:
        found.append(MLflow(_module("mlflow", "mlflow"), config, run_id))
    return found


def _module(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"runtime.{extra} is set, but its package is not installed: pip install 'steerlm-kubeflow[{extra}]'."
        ) from error


class Tracker(Reader):
    """What trackers share: which events have numbers, and under which name."""

    period = 2.0
    join_seconds = 30.0

    def numbers(self, event: Event) -> Iterator[tuple[str, float]]:
        """Yield the finite numbers of an event by name; an interval counts as its mean."""
        for name, value in event.fields.items():
            number = value.get("mean") if isinstance(value, Mapping) else value
            if isinstance(number, int | float) and math.isfinite(number) and name != "step":
                yield name, float(number)


class TensorBoard(Tracker):
    """Writes event files: a folder for the loop and one for each iteration's training, to be laid over one another."""

    name = "TensorBoard tracker"

    def __init__(self, writer: Any, folder: str) -> None:
        """Write below `folder`, by writers of the class `writer`."""
        super().__init__()
        self._make, self._folder = writer, folder
        self._writers: dict[str, Any] = {}

    def take(self, event: Event) -> None:
        """Write the numbers of a training step or of an iteration."""
        if event.kind == "metric" and event.step == "train" and "step" in event.fields:
            self._write(f"iteration-{event.iteration or 0:03d}", "train", event, int(event.fields["step"]))
        elif event.kind == "iteration":
            self._write("loop", "iteration", event, event.iteration or 0)

    def tick(self) -> None:
        """Bring what was written to the disk."""
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()

    def _write(self, part: str, group: str, event: Event, step: int) -> None:
        if part not in self._writers:
            self._writers[part] = self._make(log_dir=f"{self._folder}/{part}")
        for name, value in self.numbers(event):
            self._writers[part].add_scalar(f"{group}/{name}", value, step, event.time)


class MLflow(Tracker):
    """Logs to a tracking server or folder; every process of a run finds the same MLflow run by its tag."""

    name = "MLflow tracker"

    def __init__(self, mlflow: Any, config: RunConfig, run_id: str) -> None:
        """Log to `runtime.mlflow`, in the experiment of the configuration's name."""
        super().__init__()
        self._mlflow, self._config, self._run_id = mlflow, config, run_id
        self._waiting: list[Any] = []

    def open(self) -> None:
        """Find or make the run."""
        self._client = self._mlflow.MlflowClient(tracking_uri=self._config.runtime.mlflow)
        known = self._client.get_experiment_by_name(self._config.name)
        experiment = known.experiment_id if known else self._client.create_experiment(self._config.name)
        mine = f"tags.`steerlm.run` = '{self._run_id}'"
        found = self._client.search_runs([experiment], filter_string=mine, max_results=1)
        self._tracked = found[0] if found else self._begin(experiment)

    def take(self, event: Event) -> None:
        """Note the numbers of a training step or of an iteration."""
        if event.kind == "metric" and event.step == "train" and "step" in event.fields:
            group, step = f"iteration-{event.iteration or 0:03d}", int(event.fields["step"])
        elif event.kind == "iteration":
            group, step = "loop", event.iteration or 0
        else:
            return
        metric = self._mlflow.entities.Metric
        when = int(event.time * 1000)
        self._waiting += [metric(f"{group}/{name}", value, when, step) for name, value in self.numbers(event)]

    def tick(self) -> None:
        """Send what is noted, in calls as large as the server takes."""
        while self._waiting:
            self._client.log_batch(self._tracked.info.run_id, metrics=self._waiting[:1000])
            del self._waiting[:1000]

    def close(self) -> None:
        """Say that this process has ended."""
        self._client.set_terminated(self._tracked.info.run_id)

    def _begin(self, experiment: str) -> Any:
        tags = {"steerlm.run": self._run_id}
        run = self._client.create_run(experiment, tags=tags, run_name=self._run_id)
        parameter = self._mlflow.entities.Param
        given = [
            parameter(key, str(value)[:_LONGEST_PARAMETER])
            for key, value in dotted(self._config.model_dump(mode="json"))
        ]
        for start in range(0, len(given), 100):
            self._client.log_batch(run.info.run_id, params=given[start : start + 100])
        return run
