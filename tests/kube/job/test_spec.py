"""The PyTorchJob as a function: what every platform gets, what the platform file changes, what the name rests on."""

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.run import config_from_args, parse_args

from steerlm_core.errors import ConfigError
from steerlm_core.kube.job.spec import ATTEMPT, SPEC_HASH, JobTarget, build_job, job_name, label_value, spec_hash
from steerlm_core.platform import PlatformConfig

TARGET = JobTarget("s3://bucket/run", "demo-1a2b3c4d", 3, "train", "0.1.0", {"zero_stage": 2})
CRD = Path(__file__).resolve().parents[4] / "shared" / "cluster" / "addons" / "training-operator.yaml"
OWNER = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "w", "uid": "u"}

EVERYTHING = {
    "image": {"pull_policy": "Never", "pull_secrets": ["registry"]},
    "train_job": {
        "nodes": 4,
        "processes_per_node": 2,
        "threads": 3,
        "accelerator": {"name": "nvidia.com/mig-1g.10gb", "count": 2},
        "resources": {"cpu": 8, "cpu_limit": "16", "memory": "64Gi", "ephemeral_storage": "200Gi"},
        "node_selector": {"pool": "gpu"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "spread": "require",
        "priority_class": "high",
        "queue": "team-a",
        "model_cache": {"persistentVolumeClaim": {"claimName": "models"}},
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        "volume_mounts": [{"name": "data", "mountPath": "/data"}],
        "active_deadline_seconds": 3600,
        "ttl_seconds_after_finished": 600,
        "patch": {
            "job": {"metadata": {"labels": {"team": "a"}}},
            "pod": {"spec": {"containers": [{"name": "pytorch", "env": [{"name": "NCCL_DEBUG", "value": "INFO"}]}]}},
        },
    },
    "object_store": {"endpoint": "https://s3.example", "path_style": False, "ca_config_map": "certificates"},
}


def job(settings=None, target=TARGET, attempt=0, owners=(), image="image:1"):
    return build_job(target, PlatformConfig.model_validate(settings or {}), image, "team", attempt, list(owners))


def template(manifest, replica="Master"):
    return manifest["spec"]["pytorchReplicaSpecs"][replica]["template"]


def container(manifest):
    return template(manifest)["spec"]["containers"][0]


def env(manifest):
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container(manifest)["env"]}


@pytest.mark.parametrize("settings", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_what_every_job_has(settings):
    manifest = job(settings)
    spec, pod = manifest["spec"], template(manifest)["spec"]
    nodes = settings.get("train_job", {}).get("nodes", 2)
    replicas = spec["pytorchReplicaSpecs"]
    assert {name: (r["replicas"], r["restartPolicy"]) for name, r in replicas.items()} == {
        "Master": (1, "Never"),
        "Worker": (nodes - 1, "Never"),
    }
    assert replicas["Master"]["template"] == replicas["Worker"]["template"]
    assert spec["runPolicy"]["backoffLimit"] == 0
    assert spec["runPolicy"]["cleanPodPolicy"] == "Running"
    assert spec["runPolicy"]["ttlSecondsAfterFinished"] == settings.get("train_job", {}).get(
        "ttl_seconds_after_finished", 86_400
    )
    assert isinstance(spec["nprocPerNode"], str)
    assert "elasticPolicy" not in spec
    assert [each["name"] for each in pod["containers"]] == ["pytorch"]
    assert pod["serviceAccountName"] == "steerlm-train"
    assert pod["automountServiceAccountToken"] is False
    assert template(manifest)["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"
    assert container(manifest)["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert {"name": "metrics", "containerPort": 9090} in container(manifest)["ports"]


@pytest.mark.parametrize("settings", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_pods_satisfy_pod_security_restricted_with_a_read_only_root(settings):
    pod, main = template(job(settings))["spec"], container(job(settings))
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 1000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert main["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    allowed = {"emptyDir", "configMap", "downwardAPI", "persistentVolumeClaim"}
    assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= allowed
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()


def test_what_a_pod_writes_to_is_limited_and_goes_with_it():
    manifest = job()
    volumes = {volume["name"]: volume["emptyDir"] for volume in template(manifest)["spec"]["volumes"]}
    assert volumes["shm"] == {"medium": "Memory", "sizeLimit": "2Gi"}
    assert volumes["scratch"] == {"sizeLimit": "50Gi"}
    assert volumes["tmp"] == {"sizeLimit": "2Gi"}
    mounts = {mount["name"]: mount["mountPath"] for mount in container(manifest)["volumeMounts"]}
    assert mounts == {"shm": "/dev/shm", "scratch": "/scratch", "tmp": "/tmp"}
    assert container(manifest)["resources"]["limits"]["ephemeral-storage"] == "60Gi"
    assert (
        int(env(manifest)["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"])
        < template(manifest)["spec"]["terminationGracePeriodSeconds"]
    )
    assert env(manifest)["TMPDIR"] == env(manifest)["HOME"] == "/scratch"


def test_credentials_come_from_the_secret_alone():
    found = env(job({"object_store": {"secret": "store-key"}}))
    for key, optional in (("AWS_ACCESS_KEY_ID", 0), ("AWS_SECRET_ACCESS_KEY", 0), ("AWS_SESSION_TOKEN", 1)):
        assert found[key] == {"secretKeyRef": {"name": "store-key", "key": key, "optional": bool(optional)}}
    without = env(job({"object_store": {"secret": None}}))
    assert not [key for key in without if "KEY" in key or "TOKEN" in key]


@pytest.mark.parametrize("name", [None, "nvidia.com/gpu", "amd.com/gpu", "nvidia.com/mig-1g.10gb"])
def test_the_accelerator_is_requested_by_its_name(name):
    resources = container(job({"train_job": {"accelerator": {"name": name, "count": 2}}}))["resources"]
    found = [{key: value for key, value in resources[part].items() if "/" in key} for part in ("requests", "limits")]
    assert found == ([{name: "2"}] * 2 if name else [{}, {}])


def test_the_platform_file_reaches_the_manifest():
    manifest = job(EVERYTHING)
    pod, main = template(manifest, "Worker")["spec"], container(manifest)
    assert manifest["spec"]["nprocPerNode"] == "2"
    assert manifest["spec"]["runPolicy"]["activeDeadlineSeconds"] == 3600
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert manifest["metadata"]["labels"]["team"] == "a"
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert pod["affinity"] == {"podAntiAffinity": {}}
    assert pod["priorityClassName"] == "high"
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    (spread,) = pod["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "DoNotSchedule")
    assert spread["labelSelector"]["matchLabels"] == {"training.kubeflow.org/job-name": manifest["metadata"]["name"]}
    assert main["imagePullPolicy"] == "Never"
    assert main["resources"]["limits"]["cpu"] == "16"
    assert {"name": "models", "persistentVolumeClaim": {"claimName": "models"}} in pod["volumes"]
    assert {"name": "data", "mountPath": "/data"} in main["volumeMounts"]
    found = env(manifest)
    assert (found["OMP_NUM_THREADS"], found["NCCL_DEBUG"], found["STEERLM_MODEL_CACHE"]) == ("3", "INFO", "/models")
    assert found["AWS_ENDPOINT_URL_S3"] == "https://s3.example"
    assert found["AWS_CA_BUNDLE"] == "/etc/steerlm/certificates/ca.crt"
    assert found["STEERLM_S3_ADDRESSING"] == "virtual"


@pytest.mark.parametrize("store", [{}, {"path_style": False}, {"endpoint": "http://s3"}])
def test_clients_are_told_of_the_addressing_style_only_where_it_is_not_theirs_already(store):
    assert "STEERLM_S3_ADDRESSING" not in env(job({"object_store": store}))


def test_one_node_has_no_workers():
    assert list(job({"train_job": {"nodes": 1}})["spec"]["pytorchReplicaSpecs"]) == ["Master"]


def test_a_patch_may_not_take_the_operators_container_away():
    patch = {"spec": {"containers": [{"name": "pytorch", "$patch": "delete"}]}}
    with pytest.raises(ConfigError, match=r"patch\.pod: leaves the containers \[\]"):
        job({"train_job": {"patch": {"pod": patch}}})


def test_pods_are_told_what_to_do():
    manifest = job()
    arguments = container(manifest)["args"]
    said = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert said.pop("--how") == '{"zero_stage": 2}'
    assert said == {
        "--root": "s3://bucket/run",
        "--iteration": "3",
        "--job": manifest["metadata"]["name"],
        "--orphan-after": "600",
    }


def test_torchrun_waits_for_other_nodes_as_long_as_the_job_may_live(monkeypatch):
    operator = {"PET_NNODES": "4", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "job-master-0", "PET_MASTER_PORT": "23456"}
    variables = {name: value for name, value in env(job(EVERYTHING)).items() if isinstance(value, str)}
    for name, value in {**variables, **operator}.items():
        monkeypatch.setenv(name, value)
    config, *_ = config_from_args(parse_args(["train.py"]))
    assert (config.rdzv_backend, config.rdzv_endpoint) == ("static", "job-master-0:23456")
    assert config.rdzv_configs == {"timeout": "3600", "rank": 1}


def test_the_hash_ignores_owners_and_attempt_and_nothing_else():
    first = job(EVERYTHING)
    sha256 = first["metadata"]["annotations"][SPEC_HASH]
    assert spec_hash(first) == sha256
    later = job(EVERYTHING, attempt=2, owners=[OWNER])
    assert later["metadata"]["annotations"][SPEC_HASH] == spec_hash(later) == sha256
    assert later["metadata"]["ownerReferences"] == [OWNER]
    assert later["metadata"]["labels"][ATTEMPT] == template(later)["metadata"]["labels"][ATTEMPT] == "2"
    assert later["metadata"]["name"] != first["metadata"]["name"]
    others = [
        job(EVERYTHING, image="image:2"),
        job(EVERYTHING, target=JobTarget(**{**vars(TARGET), "iteration": 4})),
        job(EVERYTHING, target=JobTarget(**{**vars(TARGET), "how": {"zero_stage": 3}})),
        job({**EVERYTHING, "train_job": {**EVERYTHING["train_job"], "node_selector": {"pool": "other"}}}),
    ]
    assert len({sha256, *(other["metadata"]["annotations"][SPEC_HASH] for other in others)}) == 5
    assert len({first["metadata"]["name"], *(other["metadata"]["name"] for other in others)}) == 5


def test_two_runs_with_the_same_configuration_have_jobs_of_their_own():
    names = {job(target=JobTarget(**{**vars(TARGET), key: "x"}))["metadata"]["name"] for key in ("root", "run_id")}
    assert len({job()["metadata"]["name"], *names}) == 3


@given(st.text(max_size=80), st.integers(0, 10**6), st.sampled_from(["train", "train_attribute_model"]))
def test_names_are_dns_labels_of_at_most_40_characters(run_id, number, stage):
    name = job_name(JobTarget("s3://b/r", run_id, number, stage, "1"), "0" * 64, number)
    assert len(name) <= 40
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name)


@given(st.text(max_size=100))
def test_labels_are_valid_whatever_the_text(text):
    assert re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", label_value(text))


def test_long_run_ids_keep_labels_of_their_own():
    assert label_value("x" * 80 + "1") != label_value("x" * 80 + "2")


def test_the_manifest_is_plain_json():
    manifest = job(EVERYTHING, owners=[OWNER])
    assert json.loads(json.dumps(manifest)) == manifest


if CRD.is_file():  # not a skip: the schema is the cluster kit's, which a clone may have beside it

    @pytest.mark.parametrize("settings", [{}, EVERYTHING], ids=["defaults", "everything"])
    def test_the_operators_schema_knows_every_field(settings):
        documents = yaml.safe_load_all(CRD.read_text())
        crd = next(each for each in documents if each["kind"] == "CustomResourceDefinition")
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        assert list(strangers(job(settings, owners=[OWNER]), schema, "job")) == []


def strangers(value, schema, place):
    """Yield every place whose type is not the schema's, or that the schema does not have."""
    types = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    kinds = (str, int) if schema.get("x-kubernetes-int-or-string") else types.get(schema.get("type"), object)
    if not isinstance(value, kinds):
        yield f"{place}: {value!r}"
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from strangers(item, schema["items"], f"{place}[{number}]")
    elif isinstance(value, dict) and ("properties" in schema or "additionalProperties" in schema):
        for key, item in value.items():
            known = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            if known is None:
                yield f"{place}.{key}: unknown"
            else:
                yield from strangers(item, known, f"{place}.{key}")
