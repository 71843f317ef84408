"""The runs of a Kubeflow as its API describes them: which there are, what they were given, how they stand."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from typing import Any

from kfp_server_api import ApiException
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_result,
    stop_after_delay,
    wait_exponential_jitter,
)
from urllib3.exceptions import HTTPError

from steerlm_core.errors import KubeflowError, did_you_mean
from steerlm_core.kubeflow.client import Kubeflow

PAGE = 100
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
CANCELING = "CANCELING"
POLL_SECONDS = 5.0
_TRANSIENT = (429, 500, 502, 503, 504)


def get_run(kubeflow: Kubeflow, run_id: str) -> Any:
    """Return a run.

    Raises:
        KubeflowError: There is none of this id.
    """
    try:
        return kubeflow.client.get_run(run_id)
    except ApiException as error:
        if error.status == 404:
            raise KubeflowError(
                f"{run_id}: no such run on {kubeflow.host}; `steerlm kubeflow status` lists the runs."
            ) from error
        raise


def retrying(seconds: float, until: Callable[[Any], bool] = lambda _: True) -> Retrying:
    """Return how a question is asked again: while no answer comes, and until the answer is the one that is waited for.

    Args:
        seconds: How long; then the last answer is returned, or the last error raised.
        until: Whether an answer will do.
    """
    return Retrying(
        retry=retry_if_exception(_passes) | retry_if_result(lambda answer: not until(answer)),
        stop=stop_after_delay(seconds),
        wait=wait_exponential_jitter(multiplier=POLL_SECONDS, max=30, jitter=POLL_SECONDS),
        retry_error_callback=_last,
    )


def _passes(error: BaseException) -> bool:
    return isinstance(error, HTTPError) or (isinstance(error, ApiException) and error.status in _TRANSIENT)


def _last(state: RetryCallState) -> Any:
    assert state.outcome is not None
    return state.outcome.result()


def has_ended(run: Any) -> bool:
    """Whether Kubeflow calls it ended; one that has just been made has no state yet."""
    return run.state in ENDED


def was_terminated(run: Any) -> bool:
    """Whether somebody ended it: Kubeflow calls it failed then, and only its history tells."""
    states = [each.state for each in run.state_history or []]
    return run.state == "CANCELED" or (run.state == "FAILED" and states[-2:] == [CANCELING, "FAILED"])


def retried_at(run: Any) -> datetime | None:
    """Return when it was last retried: tasks that ended before have states from before."""
    history = run.state_history or []
    again = [now for before, now in pairwise(history) if before.state in ENDED]
    return again[-1].update_time if again else None


def state_word(state: str | None) -> str:
    """Return a state for people; what has none yet is pending."""
    return (state or "PENDING").lower().replace("_", " ")


def how_it_stands(run: Any) -> str:
    """Return a run's state for people."""
    return "terminated" if was_terminated(run) else state_word(run.state)


def parameters(run: Any) -> dict[str, Any]:
    """Return the arguments of a run or a recurring run."""
    config = run.runtime_config
    return (config.parameters if config else None) or {}


def recent_runs(kubeflow: Kubeflow, experiment_id: str) -> list[Any]:
    """Return the last runs of an experiment, the newest first."""
    found = kubeflow.client.list_runs(experiment_id=experiment_id, page_size=PAGE, sort_by="created_at desc")
    return found.runs or []


def experiment_id(kubeflow: Kubeflow, name: str) -> str:
    """Return the id of an experiment.

    Raises:
        KubeflowError: There is none of this name; with the nearest that there is.
    """
    found = kubeflow.client.list_experiments(
        namespace=kubeflow.namespace, page_size=PAGE, filter=by_name(name)
    ).experiments
    if found:
        return str(found[0].experiment_id)
    known = kubeflow.client.list_experiments(namespace=kubeflow.namespace, page_size=PAGE).experiments or []
    near = did_you_mean(name, [each.display_name for each in known])
    raise KubeflowError(f"{name}: no such experiment on {kubeflow.host}{near}; `steerlm kubeflow submit` makes it.")


def by_name(name: str) -> str:
    """Return the filter of a listing that leaves what is called so."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})
