"""Write what an operator applies for monitoring from what it is made of: `make compile` runs this.

alerts.yaml (Prometheus's own format) ─► prometheus-rule.yaml
PANELS (below)                        ─► dashboard.json, for Grafana
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "manifests" / "components" / "monitoring"
GENERATED = "# Made of alerts.yaml by `make compile`.\n"
_WIDTH, _HEIGHT, _COLUMNS = 12, 8, 2
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """A graph.

    Attributes:
        title: What it shows.
        unit: Grafana's name of the unit.
        queries: PromQL, each with the legend of its series.
        description: What is good, or when to worry.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    description: str


def _of_runs(query: str) -> str:
    return query.replace("RUN", 'run=~"$run"')


PANELS = (
    Panel(
        "Distance to the target",
        "none",
        (("steerlm_distance{RUN}", "{{run}} {{at}}"),),
        "KL(ws || b) in nats. `after` falls from iteration to iteration, until it has plateaued.",
    ),
    Panel(
        "Effective sample size",
        "none",
        (("steerlm_effective_sample_size{RUN}", "{{run}} {{at}}"),),
        "Candidates that a group's weights rest on. Under 2 an iteration tells nothing.",
    ),
    Panel("Training loss", "none", (("steerlm_train_loss{RUN}", "{{run}}"),), "Of the last global batch."),
    Panel(
        "Training tokens",
        "none",
        (("sum by (run) (rate(steerlm_train_tokens_total{RUN}[5m]))", "{{run}}"),),
        "Tokens a second, the ranks together.",
    ),
    Panel(
        "Duration of an optimizer step",
        "s",
        tuple(
            (
                f"histogram_quantile({share}, sum by (run, le) "
                "(rate(steerlm_train_step_duration_seconds_bucket{RUN}[5m])))",
                f"{{{{run}}}} {legend}",
            )
            for share, legend in ((0.5, "median"), (0.95, "95%"))
        ),
        "A growing gap between the two is a rank, or a store, that stalls.",
    ),
    Panel(
        "Age of the last checkpoint",
        "s",
        (("time() - steerlm_last_checkpoint_timestamp_seconds{RUN}", "{{run}}"),),
        "What a death now would cost.",
    ),
    Panel(
        "Progress",
        "percentunit",
        (("steerlm_stage_progress_ratio{RUN} and (steerlm_stage_running{RUN} == 1)", "{{run}} {{stage}}"),),
        "Of the stages at work.",
    ),
    Panel(
        "Duration of stages",
        "s",
        (("steerlm_stage_last_duration_seconds{RUN}", "{{run}} {{stage}}"),),
        "How long each stage last took.",
    ),
    Panel(
        "Sampler drift",
        "none",
        (("steerlm_sampler_drift_ratio{RUN}", "{{run}}"),),
        "Of a token's probability between sampling and scoring; 1 is none, and generate fails at 1.05.",
    ),
    Panel(
        "Retained mass",
        "none",
        (("steerlm_retained_mass_ratio{RUN}", "{{run}}"),),
        "Probability that the trained policy leaves to held-out candidates; near 1 is sound.",
    ),
)


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    return {
        "uid": "steerlm",
        "title": "SteerLM",
        "tags": ["steerlm"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_datasource_choice(), _run_choice()]},
        "panels": [_panel(number, panel) for number, panel in enumerate(PANELS)],
    }


def prometheus_rule(alerts: str) -> str:
    """Return the PrometheusRule of a rules file; the text of the rules is kept as it is."""
    body = "\n".join(line for line in alerts.splitlines() if not line.startswith("#"))
    indented = "".join(f"  {line}\n" if line else "\n" for line in body.splitlines())
    return (
        f"{GENERATED}apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: steerlm\n"
        f"  labels:\n    app.kubernetes.io/part-of: steerlm\nspec:\n{indented}"
    )


def _datasource_choice() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _run_choice() -> dict[str, Any]:
    query = "label_values(steerlm_stage_running, run)"
    return {
        "name": "run",
        "label": "Run",
        "type": "query",
        "datasource": _DATASOURCE,
        "query": {"query": query, "refId": "runs"},
        "refresh": 2,  # whenever the time range changes
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, _COLUMNS)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": _DATASOURCE, "expr": _of_runs(query), "legendFormat": legend}
            for i, (query, legend) in enumerate(panel.queries)
        ],
    }


def contents() -> dict[str, str]:
    """Return every generated file's text by its name."""
    return {
        "prometheus-rule.yaml": prometheus_rule((FOLDER / "alerts.yaml").read_text()),
        "dashboard.json": json.dumps(dashboard(), indent=2) + "\n",
    }


if __name__ == "__main__":
    for name, text in contents().items():
        (FOLDER / name).write_text(text)
