"""Without a cluster: one place for versions, commands and options that exist, platform files that validate."""

import re

import pytest
import typer
import yaml

from steerlm_core import __version__
from steerlm_core.cli import app
from steerlm_core.platform import PlatformConfig, load_platform
from tests.manifests.sources import MANIFESTS, PLATFORMS, RELEASE, documents, objects

(release,) = documents(RELEASE)


def test_versions_stand_in_one_place():
    version = release["data"]["version"]
    assert version == __version__
    assert release["data"]["suffix"].startswith(version.replace(".", "-"))
    elsewhere = [
        path
        for path in MANIFESTS.rglob("*")
        if path.is_file() and path != RELEASE and re.search(rf"\b{re.escape(version)}\b", path.read_text())
    ]
    assert not elsewhere


def test_images_are_named_by_the_release_alone():
    images = {c["image"] for job in objects("Job") for c in job["spec"]["template"]["spec"]["containers"]}
    assert images == {"IMAGE"}, "components/release puts the image there"
    assert release["data"]["image"].endswith(f":{release['data']['version']}")


@pytest.mark.parametrize("path", PLATFORMS, ids=lambda path: path.parent.name)
def test_platform_files_are_valid(path):
    platform = load_platform(path)
    assert platform.object_store.secret == "steerlm-object-store"
    assert platform.train_job.service_account == "steerlm-train"
    account = "default-editor" if "multi-user" in path.parts else "pipeline-runner"
    assert platform.steps.service_account == account
    assert "train_job" in platform.model_fields_set, "the registered pipeline trains in PyTorchJobs"


def test_the_example_secret_has_the_keys_that_pods_read_and_belongs_to_no_overlay():
    (secret,) = objects("Secret")
    assert secret["metadata"]["name"] == PlatformConfig().object_store.secret
    assert set(secret["stringData"]) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    applied = [path for path in MANIFESTS.rglob("kustomization.yaml") if "object-store" in path.read_text()]
    assert not applied


def job_arguments() -> list[list[str]]:
    files = [MANIFESTS / "base/register/kustomization.yaml", MANIFESTS / "components/schedule/job/kustomization.yaml"]
    patches = [documents(path)[0]["patches"][0]["patch"] for path in files]
    return [yaml.safe_load(patch)[0]["value"] for patch in patches]


@pytest.mark.parametrize("arguments", job_arguments(), ids=lambda arguments: arguments[0])
def test_jobs_call_commands_and_options_that_exist(arguments):
    command = typer.main.get_command(app).commands["kubeflow"].commands[arguments[0]]
    command.make_context(arguments[0], list(arguments[1:]), resilient_parsing=False)


@pytest.mark.parametrize("name", ["upload", "schedule"])
def test_jobs_set_environment_that_the_commands_read(name):
    (job,) = objects("Job")
    given = {variable["name"] for variable in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    command = typer.main.get_command(app).commands["kubeflow"].commands[name]
    read = [parameter.envvar or [] for parameter in command.params]
    names = {variable for variables in read for variable in ([variables] if isinstance(variables, str) else variables)}
    assert given - names <= {"STEERLM_IMAGE", "STEERLM_PLATFORM"} if name == "schedule" else given <= names
