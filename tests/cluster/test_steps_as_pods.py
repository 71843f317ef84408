"""Every step of the compiled pipeline once, as a pod of the image under `restricted`: one iteration on real S3.

The pod is what Argo would make of the compiled pipeline: command, arguments, image, environment and resources of the
executor, and what kfp-kubernetes adds. KFP's own launcher, which is not here, would fill in the input and write the
outputs down: a file in the pod's scratch stands for them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from steerlm_core.kubeflow.local_runner import plain
from steerlm_core.kubeflow.platform import write_pipeline
from steerlm_core.platform import PlatformConfig
from steerlm_core.store import open_store
from steerlm_core.store.contents import read_contents
from tests.cluster.kit import IMAGE, kubectl
from tests.cluster.place import SECRET, Place
from tests.services.s3 import BUCKET, SECRET_KEY
from tests.toy.world import build, small
from tests.waiting import until

OUTPUTS = "/scratch/outputs"
STEPS = ("begin", "prepare", "gate", "generate", "score", "weigh", "train", "evaluate", "decide",
         "confirm", "finish", "report")  # fmt: skip


def test_every_step_of_the_compiled_pipeline_runs_as_a_restricted_pod(place: Place, tmp_path):
    root, config = f"s3://{BUCKET}/steps-as-pods", _world_in_the_bucket(tmp_path)
    write_pipeline(tmp_path / "pipeline.yaml", _platform(place), 1)
    pipeline, platform = yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text())
    arguments = _arguments(root, config)
    assert {f"exec-{step}" for step in STEPS} == pipeline["deploymentSpec"]["executors"].keys()
    answers = {}
    for step in STEPS:
        pod = _pod(step, pipeline, platform, arguments[step])
        pod["metadata"]["namespace"] = place.name
        place.apply(pod)
        answers[step] = _finished(place, pod["metadata"]["name"])
    assert (answers["begin"], answers["gate"], answers["prepare"]) == (root, "run", ["0/2", "1/2"])
    contents = read_contents(open_store(root))
    assert not contents.problems
    assert contents.commits[0]["iteration"] == 0
    assert "confirmation" in " ".join(contents.documents)


def _world_in_the_bucket(folder: Path) -> dict[str, Any]:
    """Put the toy world's files where pods reach them; returns the configuration that names them there."""
    config, store = small(build(folder / "world")), open_store(f"s3://{BUCKET}/world-of-steps")
    for path in (folder / "world").rglob("*"):
        if path.is_file():
            store.upload(path.relative_to(folder / "world").as_posix(), path)
    raw = plain(config)
    raw["prompts"]["source"] = store.url("prompts.jsonl")
    for name in ("prior", "policy", "attribute"):
        raw["models"][name] = store.url(Path(raw["models"][name]).name)
    return raw


def _platform(place: Place) -> PlatformConfig:
    pod = {"cpu": "100m", "memory": "1Gi", "scratch": "500Mi"}
    return PlatformConfig.model_validate({
        "image": {"name": IMAGE},
        "steps": {"light": pod, "model": pod},
        "object_store": {"endpoint": place.endpoint, "secret": SECRET},
    })  # fmt: skip


def _arguments(root: str, config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    here = {"root": root, "iteration": 0}
    of_run = {"root": root}
    return {
        "begin": {"job": "job-1", "root": root, "base_root": "", "config": config, "config_uri": "",
                  "max_iterations": 1, "room": 1},
        "prepare": {**of_run, "shards": 2},
        "gate": {**here, "max_iterations": 1},
        **{step: {**here, "shard": "0/1"} for step in ("generate", "score")},
        **dict.fromkeys(("weigh", "train", "evaluate", "decide"), here),
        "confirm": of_run,
        "finish": {**of_run, "max_iterations": 1},
        "report": of_run,
    }  # fmt: skip


def _pod(step: str, pipeline: dict[str, Any], platform: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """The pod of one executor, as the driver would make it."""
    label = f"exec-{step}"
    container = pipeline["deploymentSpec"]["executors"][label]["container"]
    added = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][label]
    component = pipeline["components"][f"comp-{step}"]
    given = json.dumps(_executor_input(component, arguments))
    # What Pod Security wants beside runAsNonRoot is set by KFP on every container of a step (see the facts).
    rest = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"}, "readOnlyRootFilesystem": True}  # fmt: skip
    security = {
        "runAsNonRoot": added["securityContext"]["runAsNonRoot"],
        "runAsUser": int(added["securityContext"]["runAsUser"]),
        "runAsGroup": int(added["securityContext"]["runAsGroup"]),
    }
    secrets = [
        {"name": key["envVar"], "valueFrom": {"secretKeyRef": {
            "name": secret["secretName"], "key": key["secretKey"], "optional": secret["optional"]}}}
        for secret in added["secretAsEnv"] for key in secret["keyToEnv"]
    ]  # fmt: skip
    resources = container["resources"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"step-{step}", **added["podMetadata"]},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "containers": [{
                "name": "main",
                "image": container["image"],
                "imagePullPolicy": added["imagePullPolicy"],
                "command": container["command"],
                "args": [argument.replace("{{$}}", given) for argument in container["args"]],
                "env": [*container["env"], *secrets],
                "resources": {
                    "requests": {"cpu": resources["resourceCpuRequest"], "memory": resources["resourceMemoryRequest"]},
                    "limits": {"memory": resources["resourceMemoryLimit"]},
                },
                "securityContext": {**rest, **security},
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [*({"name": each["volumeName"], "mountPath": each["mountPath"]}
                                   for each in added["emptyDirMounts"]), {"name": "tmp", "mountPath": "/tmp"}],
            }],
            "volumes": [*({"name": each["volumeName"], "emptyDir": {"sizeLimit": each["sizeLimit"]}}
                          for each in added["emptyDirMounts"]), {"name": "tmp", "emptyDir": {}}],
        },
    }  # fmt: skip


def _executor_input(component: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    outputs = component.get("outputDefinitions", {})
    return {
        "inputs": {"parameterValues": arguments},
        "outputs": {
            "parameters": {name: {"outputFile": f"{OUTPUTS}/{name}"} for name in outputs.get("parameters", {})},
            "artifacts": {
                name: {"artifacts": [{"name": name, "type": each["artifactType"], "uri": f"{OUTPUTS}/{name}"}]}
                for name, each in outputs.get("artifacts", {}).items()
            },
            "outputFile": "/dev/termination-log",  # the executor's summary of all outputs, where the test can read it
        },
    }


def _finished(place: Place, name: str) -> object:
    """Wait for the pod; return the step's unnamed output, None where it has none."""

    def ended() -> dict[str, Any] | None:
        pod: dict[str, Any] = json.loads(kubectl("-n", place.name, "get", "pod", name, "-o", "json"))
        return pod if pod["status"].get("phase") in ("Succeeded", "Failed") else None

    pod = until(f"pod {name}", ended, 300)
    log = kubectl("-n", place.name, "logs", name)
    assert pod["status"]["phase"] == "Succeeded", log[-3000:]
    assert SECRET_KEY not in log + json.dumps(pod)
    said = json.loads(pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"])
    return said.get("parameterValues", {}).get("Output")
