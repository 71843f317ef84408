"""Where metrics go: a port that Prometheus scrapes, a Pushgateway for what is over before it is scraped.

STEERLM_METRICS_PORT   serve /metrics on this port while the process works
STEERLM_PUSHGATEWAY    push the final state of each step to this address, as {job, pipeline, stage}
"""

from __future__ import annotations

import os

from prometheus_client import ProcessCollector, push_to_gateway, start_http_server

from steerlm_core.errors import ConfigError
from steerlm_core.observe.events import Event, Listener
from steerlm_core.observe.metrics import Metrics

PORT, GATEWAY = "STEERLM_METRICS_PORT", "STEERLM_PUSHGATEWAY"

_JOB = "steerlm"
_PUSH_SECONDS = 5.0  # a gateway that does not answer must not hold up a step for longer

_served: dict[int, Metrics] = {}


def metric_listeners(pipeline: str) -> list[Listener]:
    """Return the listeners that the environment asks for.

    Args:
        pipeline: Name of the run's configuration: groups of a Pushgateway never go away, and ids of runs would pile up.

    Raises:
        ConfigError: The port is no number, or taken.
    """
    port, gateway = os.environ.get(PORT), os.environ.get(GATEWAY)
    found: list[Listener] = [serve(port)] if port else []
    return [*found, Pusher(gateway, pipeline)] if gateway else found


def serve(port: str) -> Metrics:
    """Serve metrics on a port, from a thread, until the process ends; the same ones when asked again.

    Raises:
        ConfigError: The port is no number, or taken.
    """
    if not port.isdecimal():
        raise ConfigError(f"{PORT}: '{port}' is not a port number.")
    number = int(port)
    if number not in _served:
        metrics = Metrics()
        ProcessCollector(registry=metrics.registry)
        try:
            start_http_server(number, registry=metrics.registry)
        except OSError as error:
            raise ConfigError(f"{PORT}: port {number} cannot be served ({error.strerror}); use another.") from error
        _served[number] = metrics
    return _served[number]


class Pusher:
    """Pushes what each step said, when it has ended; an error of the gateway ends it, not the run."""

    def __init__(self, gateway: str, pipeline: str) -> None:
        """Name the gateway and the pipeline."""
        self._gateway, self._pipeline = gateway, pipeline
        self._steps: dict[tuple[str, int | None, int | None], Metrics] = {}

    def __call__(self, event: Event) -> None:
        """Take an event.

        Raises:
            OSError: The gateway did not take it.
        """
        key = (event.step, event.iteration, event.shard)
        if event.kind == "started":
            self._steps[key] = Metrics()
        if key not in self._steps:
            return
        self._steps[key](event)
        if event.kind in ("finished", "failed"):
            where = {"pipeline": self._pipeline, "stage": event.step}
            registry = self._steps.pop(key).registry
            push_to_gateway(self._gateway, _JOB, registry, grouping_key=where, timeout=_PUSH_SECONDS)
