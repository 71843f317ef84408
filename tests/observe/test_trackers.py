"""TensorBoard and MLflow as readers of the event stream, with the real packages and their stores on disk."""

from __future__ import annotations

import sys
import threading

import pytest

from steerlm_core.config import RunConfig, parse_config
from steerlm_core.errors import ConfigError
from steerlm_core.observe import trackers
from steerlm_core.observe.events import EventLog
from steerlm_core.observe.trackers import make_trackers

NUMBERS = {"loss": 0.5, "distance": 0.4, "ess": 3.0}
EVALUATION = {"distance_after": {"mean": 0.25, "low": 0.2, "high": 0.3}, "ess_median": 3.2, "levels": {"mood": {}}}
COMMIT = {"iteration": 1, "accepted": True, "reason": "fell"}


def _config(**runtime: str) -> RunConfig:
    base = {"name": "demo", "attributes": [{"name": "mood"}], "models": {"prior": "embedded:stories"}}
    return parse_config({**base, "runtime": runtime}, "test")


def _work(config: RunConfig, iteration: int = 1) -> None:
    """Three training steps and the end of an iteration, told to the trackers of a process."""
    (tracker,) = make_trackers(config, "demo-1234")
    with tracker:
        log = EventLog("demo-1234", None, [tracker])
        with log.step("train", iteration) as says:
            for step in (1, 2, 3):
                says.metric(step=float(step), **{**NUMBERS, "loss": 1.0 / step})
            says.metric(step=4.0, loss=float("nan"))
        log.iteration(EVALUATION, COMMIT | {"iteration": iteration})


def test_tensorboard_has_every_step_and_the_loop(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _work(_config(tensorboard=str(tmp_path)))
    steps = EventAccumulator(str(tmp_path / "demo-1234/iteration-001")).Reload().Scalars("train/loss")
    assert [(each.step, round(each.value, 4)) for each in steps] == [(1, 1.0), (2, 0.5), (3, 0.3333)]
    loop = EventAccumulator(str(tmp_path / "demo-1234/loop")).Reload()
    assert [(each.step, each.value) for each in loop.Scalars("iteration/distance_after")] == [(1, 0.25)]
    assert "iteration/levels" not in loop.Tags()["scalars"]


def test_mlflow_has_one_run_whatever_the_number_of_processes(tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # mlflow-skinny has no database
    config = _config(mlflow=tmp_path.as_uri())
    client = mlflow.MlflowClient(tracking_uri=config.runtime.mlflow)
    for iteration in (0, 1):
        _work(config, iteration)
    (experiment,) = [each for each in client.search_experiments() if each.name == "demo"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "demo-1234"
    assert run.info.status == "FINISHED"
    assert run.data.params["train.epochs"] == "2"
    for iteration in (0, 1):
        steps = client.get_metric_history(run.info.run_id, f"iteration-{iteration:03d}/loss")
        assert [(each.step, round(each.value, 4)) for each in steps] == [(1, 1.0), (2, 0.5), (3, 0.3333)]
    history = client.get_metric_history(run.info.run_id, "loop/distance_after")
    assert [(each.step, each.value) for each in history] == [(0, 0.25), (1, 0.25)]


def test_a_missing_package_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"pip install 'steerlm-kubeflow\[mlflow\]'"):
        make_trackers(_config(mlflow="http://127.0.0.1:9"), "demo-1234")
    assert make_trackers(_config(), "demo-1234") == []


def test_a_server_that_is_gone_never_holds_up_the_work(monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    ended = threading.Event()
    monkeypatch.setattr(trackers.MLflow, "close", lambda tracker: ended.set())  # the last thing that its thread does
    monkeypatch.setattr(sys, "__stderr__", sys.stderr)
    _work(_config(mlflow="http://127.0.0.1:9"))
    assert ended.wait(60)
    assert capsys.readouterr().err.count("the MLflow tracker has stopped") == 1
