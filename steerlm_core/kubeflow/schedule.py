"""Recurring runs: one of a name at most, one run at a time, no catching up, and always the latest version."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steerlm_core.errors import ConfigError, KubeflowError
from steerlm_core.kubeflow import chain
from steerlm_core.kubeflow.client import Kubeflow, quiet
from steerlm_core.kubeflow.package import Package
from steerlm_core.kubeflow.runs import PAGE, by_name
from steerlm_core.kubeflow.submit import find_pipeline, latest_version

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_STANDARD_FIELDS, _KFP_FIELDS = 5, 6
_SHORTEST = 60  # seconds


@dataclass(frozen=True)
class When:
    """When a recurring run starts: one of the two.

    Attributes:
        cron: Six fields, seconds first.
        seconds: Time between two starts.
    """

    cron: str | None = None
    seconds: int | None = None

    def __str__(self) -> str:
        """Return it as people are told."""
        return f"at cron '{self.cron}' (seconds first)" if self.cron else f"every {self.seconds} s"


def when(cron: str | None, interval: str | None) -> When:
    """Return what the command line says.

    Args:
        cron: Five fields as everywhere, or six with the seconds first as Kubeflow has it.
        interval: A number with its unit: 90m, 24h, 7d.

    Raises:
        ConfigError: Both or none are given, or one cannot be read.
    """
    if (cron is None) == (interval is None):
        raise ConfigError("give one of --cron and --interval.")
    if cron is None:
        return When(seconds=_seconds(interval or ""))
    fields = cron.split()
    if len(fields) == _STANDARD_FIELDS:
        fields = ["0", *fields]
    if len(fields) != _KFP_FIELDS:
        raise ConfigError(f"--cron '{cron}': {len(fields)} fields; give five (minute first), such as '0 3 * * *'.")
    return When(cron=" ".join(fields))


def _seconds(interval: str) -> int:
    found = re.fullmatch(r"(\d+)([smhdw])", interval.strip())
    if not found or (seconds := int(found[1]) * _UNITS[found[2]]) < _SHORTEST:
        raise ConfigError(f"--interval '{interval}': give a number with its unit, a minute or more: 90m, 24h, 7d.")
    return seconds


def schedule(
    kubeflow: Kubeflow,
    package: Package,
    arguments: Mapping[str, Any],
    start: When,
    name: str,
    experiment: str,
    service_account: str | None = None,
) -> str:
    """Make a recurring run, or make the one of this name so; returns what was done.

    The new one is made before the old one is deleted: if this is interrupted, both exist, which the next call mends.

    Raises:
        KubeflowError: The pipeline is not uploaded, or has no room for the iterations.
    """
    pipeline_id = find_pipeline(kubeflow, package.name)
    latest = latest_version(kubeflow, pipeline_id) if pipeline_id else None
    if pipeline_id is None or latest is None:
        raise KubeflowError(
            f"{package.name}: not uploaded to {kubeflow.host}, so there is no version to follow; "
            "first: steerlm kubeflow upload"
        )
    _check_room(latest, arguments)
    with quiet():
        experiment_id = kubeflow.client.create_experiment(experiment, namespace=kubeflow.namespace).experiment_id
    old = named(kubeflow, name)
    described = _described(arguments, start, pipeline_id, experiment_id, service_account)
    same = [each for each in old if each.description == described][:1]
    if not same:
        with quiet():
            kubeflow.client.create_recurring_run(
                experiment_id,
                name,
                description=described,
                cron_expression=start.cron,
                interval_second=start.seconds,
                max_concurrency=1,
                no_catchup=True,
                params=dict(arguments),
                pipeline_id=pipeline_id,
                version_id="",  # none, for the API: the latest one at each start; kfp's client wants the argument
                service_account=service_account,
            )
    for each in old:
        if each not in same:
            kubeflow.client.delete_recurring_run(each.recurring_run_id)
    if not same:
        return f"{name} {'was changed' if old else 'was made'}: {start}."
    if same[0].mode == "ENABLE":
        return f"{name} is so already: {start}; nothing has changed."
    kubeflow.client.enable_recurring_run(same[0].recurring_run_id)
    return f"{name} was switched off in Kubeflow, and is on again: {start}."


def _check_room(latest: Any, arguments: Mapping[str, Any]) -> None:
    """Make sure that the uploaded version has as many iterations as are asked for."""
    spec = latest.pipeline_spec or {}
    spec = spec.get("pipeline_spec", spec)
    limit = arguments.get("max_iterations")
    if limit and spec and limit > (room := chain.room(spec["components"])):
        raise KubeflowError(
            f"max_iterations: {limit} is more than the {room} of the uploaded version {latest.display_name}; lower it, "
            f"or: steerlm kubeflow upload --max-iterations {limit}"
        )


def unschedule(kubeflow: Kubeflow, name: str) -> str:
    """Delete the recurring runs of a name; returns what was done. Their runs stay."""
    found = named(kubeflow, name)
    for each in found:
        kubeflow.client.delete_recurring_run(each.recurring_run_id)
    return f"{name} was deleted; runs that it has started stay." if found else f"{name}: there is none; nothing to do."


def named(kubeflow: Kubeflow, name: str) -> list[Any]:
    """Return the recurring runs of a name."""
    found = kubeflow.client.list_recurring_runs(namespace=kubeflow.namespace, page_size=PAGE, filter=by_name(name))
    return found.recurring_runs or []


def _described(arguments: Mapping[str, Any], start: When, *others: str | None) -> str:
    """What is written beside a recurring run, and tells it from one with other settings.

    What the server returns does not: it fills in what was left out.
    """
    settings = json.dumps([dict(arguments), str(start), *others], sort_keys=True)
    return f"Made by `steerlm kubeflow schedule`; settings sha256:{hashlib.sha256(settings.encode()).hexdigest()}"
