"""Alerts, dashboard and PodMonitor ask for what the code exports, where the pods export it."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from steerlm_core.kube.job.pod_template import METRICS_PORT
from steerlm_core.kube.job.spec import JobTarget, build_job
from steerlm_core.observe.metrics import Metrics
from steerlm_core.platform import PlatformConfig
from tests.manifests.sources import one
from tests.services.prometheus import tool
from tools.monitoring import FOLDER, PANELS, contents

_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "info": ("_info",), "gauge": ("",)}
EXPORTED = {
    family.name + suffix for family in Metrics().registry.collect() for suffix in _SUFFIXES[family.type]
}  # each as a query names it
TARGET = JobTarget("s3://bucket/run", "demo", 0, "train", "0.1.0")
TEMPLATE = build_job(TARGET, PlatformConfig(), "image:1", "ns", 0, [])["spec"]["pytorchReplicaSpecs"]["Master"][
    "template"
]


def named(query: str) -> set[str]:
    """Return the names of our metrics in a query."""
    return set(re.findall(r"\bsteerlm_[a-z0-9_]+", query))


def promtool(folder: Path, *words: str) -> None:
    done = subprocess.run([tool("promtool"), *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", contents())
def test_what_is_generated_is_up_to_date(name):
    assert (FOLDER / name).read_text() == contents()[name], "run `make compile`"


def test_the_rule_holds_the_alerts_and_nothing_else():
    rule = one("PrometheusRule", "steerlm")
    assert rule["spec"] == yaml.safe_load((FOLDER / "alerts.yaml").read_text())


def test_every_alert_asks_for_exported_metrics():
    rules = one("PrometheusRule", "steerlm")["spec"]["groups"][0]["rules"]
    assert len(rules) >= 6
    for rule in rules:
        assert named(rule["expr"])
        assert named(rule["expr"]) <= EXPORTED, rule["alert"]


def test_every_alert_is_tested():
    tested = (FOLDER / "alerts_test.yaml").read_text()
    for rule in one("PrometheusRule", "steerlm")["spec"]["groups"][0]["rules"]:
        assert f"alertname: {rule['alert']}\n" in tested


@pytest.mark.parametrize("words", [("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")])
def test_promtool_accepts_the_alerts_and_their_tests(words):
    promtool(FOLDER, *words)


def test_every_panel_asks_for_exported_metrics():
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    assert len(dashboard["panels"]) == len(PANELS)
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [choice["query"]["query"] for choice in dashboard["templating"]["list"] if choice["type"] == "query"]
    for query in queries:
        assert named(query), query
        assert named(query) <= EXPORTED, query


def test_the_monitor_finds_the_port_of_the_training_pods():
    spec = one("PodMonitor", "steerlm-train")["spec"]
    labels, container = TEMPLATE["metadata"]["labels"], TEMPLATE["spec"]["containers"][0]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    assert set(spec["podTargetLabels"]) <= set(labels)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert [ports[endpoint["port"]] for endpoint in spec["podMetricsEndpoints"]] == [METRICS_PORT]
    assert {"name": "STEERLM_METRICS_PORT", "value": str(METRICS_PORT)} in container["env"]


def test_promtool_accepts_every_query(tmp_path):
    queries = {"groups": [{"name": "panels", "rules": []}]}
    for number, panel in enumerate(json.loads((FOLDER / "dashboard.json").read_text())["panels"]):
        for target in panel["targets"]:
            expression = target["expr"].replace("$run", ".*")
            queries["groups"][0]["rules"].append({"record": f"panel:{number}:{target['refId']}", "expr": expression})
    (tmp_path / "panels.json").write_text(json.dumps(queries))
    promtool(tmp_path, "check", "rules", "panels.json")
