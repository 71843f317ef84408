"""Prometheus metrics of a process that works on a run, made from its events.

    event ──► Metrics ──► /metrics on a port       while a long step works
                     └──► a Pushgateway            the final state of each step, where one is configured

Names, units and help stand here once; the alert rules in `manifests/components/monitoring` use them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics

from steerlm_core import __version__
from steerlm_core.observe.events import Event

_SECONDS = (0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)
_REASONS = {"NonFiniteError": "non_finite", "CaptureError": "drift", "OutOfMemoryError": "out_of_memory",
            "MemoryError": "out_of_memory", "interrupted": "interrupted"}  # fmt: skip

disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The metrics of one process, or of one step, in a registry of their own."""

    def __init__(self) -> None:
        """Define them; what has not been said yet is absent."""
        self.registry = CollectorRegistry()
        self._training: set[str] = set()

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, ("run", *labels), registry=self.registry)

        Info("steerlm_build", "The release at work.", registry=self.registry).info({"version": __version__})
        self._running = gauge("steerlm_stage_running", "1 while a stage works, 0 when it has ended.", "stage")
        self._progress = gauge("steerlm_stage_progress_ratio", "Share of a stage's work that is done.", "stage")
        self._moved = gauge(
            "steerlm_stage_last_progress_timestamp_seconds", "When a stage last started or got further.", "stage"
        )
        self._succeeded = gauge("steerlm_stage_last_success_timestamp_seconds", "When a stage last succeeded.", "stage")
        self._failed = gauge(
            "steerlm_stage_last_failure_timestamp_seconds", "When a stage last failed, by reason.", "stage", "reason"
        )
        self._duration = gauge("steerlm_stage_last_duration_seconds", "How long a stage last took.", "stage")
        self._iteration = gauge("steerlm_iteration", "The iteration at work, from 0.")
        self._distance = gauge(
            "steerlm_distance",
            "KL(ws || b) in nats: of the last training batch, and of the held-out groups before and after training.",
            "at",
        )
        self._ess = gauge(
            "steerlm_effective_sample_size",
            "Effective sample size of the weights: mean of the last training batch, median of an iteration's groups.",
            "at",
        )
        self._drift = gauge("steerlm_sampler_drift_ratio", "Mean exp|sampler_log_q - log_q| per token; 1 is none.")
        self._drifted = gauge("steerlm_sampler_drifted_ratio", "Share of responses that differ by more than log 3.")
        self._mass = gauge("steerlm_retained_mass_ratio", "Mean Q_theta/Q' of held-out candidates; near 1 is sound.")
        self._loss = gauge("steerlm_train_loss", "Loss of the last global batch.")
        self._checkpoint = gauge(
            "steerlm_last_checkpoint_timestamp_seconds",
            "When the last checkpoint was complete; when training began, before the first.",
        )
        self._tokens = Counter(
            "steerlm_train_tokens", "Tokens of training groups, each prompt counted once a group.", ("run",),
            registry=self.registry,
        )  # fmt: skip
        self._step_seconds, self._checkpoint_seconds = (
            Histogram(name, text, ("run",), buckets=_SECONDS, registry=self.registry)
            for name, text in (
                ("steerlm_train_step_duration_seconds", "Duration of an optimizer step."),
                ("steerlm_checkpoint_duration_seconds", "Duration of writing a checkpoint."),
            )
        )

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if event.step and event.kind in ("started", "progress", "finished", "failed"):
            self._stage(event)
        elif event.kind == "metric":
            self._values(event.run, event.step, event.time, event.fields)

    def _training_step(self, run: str, time: float, numbers: Mapping[str, Any]) -> None:
        """Take the numbers of one optimizer step; `time` is when it ended."""
        self._loss.labels(run).set(numbers["loss"])
        if "seconds" not in numbers:  # a launcher's, which sees some steps from afar; its pods say the rest
            return
        if run not in self._training:  # the age of a checkpoint that does not exist yet counts from here
            self._training.add(run)
            self._checkpoint.labels(run).set(time - numbers["seconds"])
        self._step_seconds.labels(run).observe(numbers["seconds"])
        self._tokens.labels(run).inc(numbers["tokens"])
        self._distance.labels(run, "training").set(numbers["distance"])
        self._ess.labels(run, "training").set(numbers["ess"])
        if "checkpoint_seconds" in numbers:  # of the checkpoint written before this step
            self._checkpoint_seconds.labels(run).observe(numbers["checkpoint_seconds"])
            self._checkpoint.labels(run).set(time - numbers["seconds"])

    def _stage(self, event: Event) -> None:
        run, stage, fields = event.run, event.step, event.fields
        if event.kind in ("started", "progress"):
            self._running.labels(run, stage).set(1)
            self._moved.labels(run, stage).set(event.time)
            if event.kind == "progress":
                self._progress.labels(run, stage).set(fields["done"] / max(fields["total"], 1))
            elif event.iteration is not None:
                self._iteration.labels(run).set(event.iteration)
            return
        self._running.labels(run, stage).set(0)
        if stage == "train":
            self._checkpoint.clear()  # its age must not go on growing
            self._training.discard(run)
        self._duration.labels(run, stage).set(fields["seconds"])
        if event.kind == "finished":
            self._succeeded.labels(run, stage).set(event.time)
        else:
            kind = str(fields["error"]).split(":")[0]
            reason = fields.get("reason") or _REASONS.get(kind, "other")
            self._failed.labels(run, stage, reason).set(event.time)

    def _values(self, run: str, stage: str, time: float, values: Mapping[str, Any]) -> None:
        if stage == "train" and "loss" in values:
            self._training_step(run, time, values)
        for at in ("before", "after"):
            if f"distance_{at}" in values:
                self._distance.labels(run, at).set(values[f"distance_{at}"])
        if "ess_median" in values:
            self._ess.labels(run, "groups").set(values["ess_median"])
        for name, gauge in (
            ("drift_token", self._drift), ("drift_far_share", self._drifted), ("retained_mass", self._mass)
        ):  # fmt: skip
            if name in values:
                gauge.labels(run).set(values[name])
