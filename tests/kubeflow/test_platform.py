"""The pipeline for one cluster: every pod gets what the platform file says, and the form stays what kfp runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp import components
from kfp.kubernetes import kubernetes_executor_config_pb2 as pb

from steerlm_core.errors import ConfigError
from steerlm_core.kubeflow.chain import room
from steerlm_core.kubeflow.packaged import pipeline_path
from steerlm_core.kubeflow.platform import MODEL_STEPS, write_pipeline
from steerlm_core.platform import PlatformConfig, find_platform

PLATFORM = {
    "image": {"name": "registry/steerlm:1", "pull_secrets": ["pull"]},
    "steps": {
        "pushgateway": "http://gateway:9091",
        "model": {"cpu": "4", "memory": "32Gi", "accelerator": {"name": "nvidia.com/gpu", "count": 2}, "queue": "q",
                  "node_selector": {"pool": "gpu"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]},
        "each": {"weigh": {"memory": "64Gi"}},
    },
    "object_store": {"endpoint": "http://store:9000", "ca_config_map": "ca"},
    "train_job": {"model_cache": {"persistentVolumeClaim": {"claimName": "models"}}},
}  # fmt: skip


def compiled(tmp_path: Path, platform: dict[str, Any] | None = None, iterations: int | None = None) -> list[Any]:
    given = None if platform is None else PlatformConfig.model_validate(platform)
    write_pipeline(tmp_path / "pipeline.yaml", given, iterations)
    components.load_component_from_file(str(tmp_path / "pipeline.yaml"))  # kfp reads it
    return list(yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text()))


def test_every_step_gets_image_resources_and_the_way_to_the_store(tmp_path):
    pipeline, platform = compiled(tmp_path, PLATFORM)
    containers = {name: each["container"] for name, each in pipeline["deploymentSpec"]["executors"].items()}
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert pods.keys() == containers.keys()
    for name, container in containers.items():
        assert container["image"] == "registry/steerlm:1"
        env = {each["name"]: each["value"] for each in container["env"]}
        assert env["AWS_ENDPOINT_URL_S3"] == "http://store:9000"
        assert env["AWS_CA_BUNDLE"] == "/etc/steerlm/certificates/ca.crt"
        assert env["STEERLM_PUSHGATEWAY"] == "http://gateway:9091"
        config = json_format.ParseDict(pods[name], pb.KubernetesExecutorConfig())
        assert config.security_context.run_as_non_root
        assert config.security_context.run_as_user == 1000
        assert {key.env_var for secret in config.secret_as_env for key in secret.key_to_env} == {
            "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
        }  # fmt: skip
        env.pop("STEERLM_PLATFORM_INLINE", None)  # names Secrets, as the file does
        assert "secret" not in yaml.safe_dump(env).lower()
        assert [each.mount_path for each in config.empty_dir_mounts] == ["/scratch"]


def test_only_steps_that_load_models_get_accelerators_their_queue_and_the_model_cache(tmp_path):
    pipeline, platform = compiled(tmp_path, PLATFORM)
    for label, pod in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].items():
        step = label.removeprefix("exec-").replace("-", "_")
        resources = pipeline["deploymentSpec"]["executors"][label]["container"]["resources"]
        assert ("accelerator" in resources) == (step in MODEL_STEPS), step
        assert ("nodeSelector" in pod) == (step in MODEL_STEPS)
        assert ("pvcMount" in pod) == (step in MODEL_STEPS)
        assert (pod["podMetadata"]["labels"].get("kueue.x-k8s.io/queue-name") == "q") == (step in MODEL_STEPS)
        kept = pod["podMetadata"].get("annotations", {}).get("cluster-autoscaler.kubernetes.io/safe-to-evict")
        assert (kept == "false") == (step in (*MODEL_STEPS, "train"))
        wanted = {"weigh": "64Gi"}.get(step, "32Gi" if step in MODEL_STEPS else "2Gi")
        assert resources["resourceMemoryLimit"] == wanted


def environment(pipeline: dict[str, Any], step: str) -> dict[str, str]:
    container = pipeline["deploymentSpec"]["executors"][f"exec-{step}"]["container"]
    return {each["name"]: each["value"] for each in container["env"]}


@pytest.mark.parametrize(
    ("store", "told"), [({"endpoint": "http://store", "path_style": False}, "virtual"), ({"path_style": False}, None),
                        ({"endpoint": "http://store"}, None)]
)  # fmt: skip
def test_every_step_is_told_of_host_style_addressing_where_it_is_not_the_usual(tmp_path, store, told):
    pipeline, _ = compiled(tmp_path, {"object_store": store})
    for name in pipeline["deploymentSpec"]["executors"]:
        assert environment(pipeline, name.removeprefix("exec-")).get("STEERLM_S3_ADDRESSING") == told


def test_the_steps_that_launch_jobs_carry_the_platform_and_no_other_file_is_read(tmp_path, monkeypatch):
    patch = {"pod": {"spec": {"containers": [{"name": "pytorch", "args": ["$(HOME)", "{{a}}", "{{{", "ä"]}]}}}
    given = PLATFORM | {"train_job": {"nodes": 3, "patch": patch}}
    pipeline, platform = compiled(tmp_path, given)
    carrying = {name for name in pipeline["deploymentSpec"]["executors"]
                if "STEERLM_PLATFORM_INLINE" in environment(pipeline, name.removeprefix("exec-"))}  # fmt: skip
    assert carrying == {"exec-prepare", "exec-train"}
    assert "steerlm-platform" not in yaml.safe_dump(platform)
    text = environment(pipeline, "train")["STEERLM_PLATFORM_INLINE"]
    assert "$" not in text
    assert "{{" not in text
    (tmp_path / "other.yaml").write_text("train_job: {nodes: 9}")
    monkeypatch.setenv("STEERLM_PLATFORM", str(tmp_path / "other.yaml"))
    assert find_platform(None).train_job.nodes == 9
    monkeypatch.setenv("STEERLM_PLATFORM_INLINE", text)
    assert find_platform(None) == PlatformConfig.model_validate({key: given[key] for key in given if key != "steps"})
    assert find_platform(tmp_path / "other.yaml").train_job.nodes == 9


def test_a_platform_without_training_jobs_stays_one(tmp_path, monkeypatch):
    pipeline, _ = compiled(tmp_path, {"image": {"name": "registry/steerlm:1"}})
    monkeypatch.setenv("STEERLM_PLATFORM_INLINE", environment(pipeline, "train")["STEERLM_PLATFORM_INLINE"])
    assert "train_job" not in find_platform(None).model_fields_set


def test_without_a_platform_nothing_is_set(tmp_path):
    (pipeline,) = compiled(tmp_path)
    assert pipeline == yaml.safe_load(pipeline_path().read_text())


@pytest.mark.parametrize("iterations", [1, 3, 8, 12])
def test_the_chain_is_as_long_as_wanted(tmp_path, iterations):
    (pipeline,) = compiled(tmp_path, None, iterations)
    (tasks,) = (
        each["dag"]["tasks"]
        for each in pipeline["components"].values()
        if "prepare" in each.get("dag", {}).get("tasks", {})
    )
    chain = [name for name in tasks if name.startswith("steerlm-v2-iteration")]
    assert len(chain) == room(pipeline["components"]) == iterations
    shown = {task["taskInfo"]["name"]: task for task in tasks.values()}
    for index in range(iterations):
        task = shown[f"iteration-{index}"]
        assert task["inputs"]["parameters"]["index"]["runtimeValue"]["constant"] == index
        before = [tasks[name]["taskInfo"]["name"] for name in task["dependentTasks"]]
        assert sorted(before) == sorted(["prepare", *([f"iteration-{index - 1}"] if index else [])])
    assert [tasks[name]["taskInfo"]["name"] for name in shown["confirm"]["dependentTasks"]] == [
        f"iteration-{iterations - 1}"
    ]
    begin = pipeline["root"]["dag"]["tasks"]["begin"]
    assert begin["inputs"]["parameters"]["room"]["runtimeValue"]["constant"] == iterations
    used = {task["componentRef"]["name"] for each in [pipeline["root"], *pipeline["components"].values()]
            for task in each.get("dag", {}).get("tasks", {}).values()}  # fmt: skip
    assert used == pipeline["components"].keys()


def test_a_step_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"steps\.each\.generat: no step of the pipeline; did you mean 'generate'\?"):
        compiled(tmp_path, {"steps": {"each": {"generat": {}}}})


def test_the_command_writes_it(steerlm, tmp_path):
    (tmp_path / "platform.yaml").write_text(yaml.safe_dump(PLATFORM))
    words = ("compile", "--platform", tmp_path / "platform.yaml", "-o", tmp_path / "out.yaml", "--max-iterations", 2)
    ended = steerlm(*words)
    assert ended.code == 0, ended.err
    assert "registry/steerlm:1" in (tmp_path / "out.yaml").read_text()
