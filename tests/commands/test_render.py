"""`steerlm render`: what it prints is what would be created."""

import json
import sys
from http.server import BaseHTTPRequestHandler

import pytest
import yaml

from steerlm_core import __version__
from steerlm_core.cli import main
from steerlm_core.commands.configure import Example, example_text
from steerlm_core.config import load_config, parse_config
from steerlm_core.kube.job.spec import JobTarget, build_job
from steerlm_core.platform import load_platform
from tests.runs import run_at
from tests.services.kube_api import kube_api
from tests.tiny import tiny_settings


@pytest.fixture
def files(tmp_path):
    config, platform = tmp_path / "demo.yaml", tmp_path / "platform.yaml"
    config.write_text(example_text(Example.DEMO))
    platform.write_text("image: {name: image:1}\ntrain_job: {namespace: team, nodes: 3}")
    return config, platform


def steerlm(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["steerlm", *map(str, words)])
    try:
        return main()
    except SystemExit as end:
        return int(end.code or 0)


def test_it_prints_the_job_of_a_configuration(files, monkeypatch, capsys):
    config, platform = files
    words = ("render", config, "--platform", platform, "--root", "s3://bucket/r", "--iteration", 2, "--attempt", 1)
    assert steerlm(monkeypatch, *words) == 0
    target = JobTarget.of("s3://bucket/r", "demo-00000000", load_config(config), 2)
    assert target.version == __version__
    assert target.how["token_budget"] == 4096
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed) == build_job(target, load_platform(platform), "image:1", "team", 1, [])
    assert "&" not in printed


def test_a_run_root_gives_its_own_id(files, monkeypatch, capsys, tmp_path):
    _, platform = files
    run = run_at(tmp_path / "run", parse_config(tiny_settings(), "tiny"))
    monkeypatch.setenv("STEERLM_PLATFORM", str(platform))
    assert steerlm(monkeypatch, "render", tmp_path / "run") == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert found["metadata"]["labels"]["steerlm.dev/run"] == run.run_id
    arguments = found["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[1] == str(tmp_path / "run")
    assert json.loads(arguments[-1])["zero_stage"] == 2


def test_without_an_image_it_says_which_setting_is_missing(files, monkeypatch, capsys):
    assert steerlm(monkeypatch, "render", files[0]) == 2
    assert "image.name" in capsys.readouterr().err


def rendered(files, monkeypatch, capsys, *words):
    """The job of a platform file that names no namespace, and what was said beside it."""
    config, platform = files
    platform.write_text("image: {name: image:1}")
    assert steerlm(monkeypatch, "render", config, "--platform", platform, *words) == 0
    printed = capsys.readouterr()
    return yaml.safe_load(printed.out), printed.err


def test_the_namespace_is_that_of_a_launcher_started_here(files, monkeypatch, capsys, tmp_path):
    with kube_api(BaseHTTPRequestHandler, "team-b", tmp_path, monkeypatch):  # which answers nothing
        job, said = rendered(files, monkeypatch, capsys)
    assert (job["metadata"]["namespace"], said) == ("team-b", "")


def test_a_namespace_that_is_assumed_is_said(files, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    job, said = rendered(files, monkeypatch, capsys)
    assert job["metadata"]["namespace"] == "default"
    assert "'default' is assumed" in said


@pytest.mark.parametrize("text", ["{", "- a\n- b: [", None])
def test_a_kubeconfig_that_cannot_be_read_is_as_good_as_none(files, monkeypatch, capsys, tmp_path, text):
    path = tmp_path / "kubeconfig"
    path.write_text(text) if text else path.mkdir()
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    assert "'default' is assumed" in rendered(files, monkeypatch, capsys)[1]


def test_the_root_has_the_form_that_a_run_gives_it(files, monkeypatch, capsys, tmp_path):
    with kube_api(BaseHTTPRequestHandler, "team", tmp_path, monkeypatch):
        jobs = [rendered(files, monkeypatch, capsys, "--root", root)[0] for root in ("s3://bucket/r", "s3://bucket/r/")]
    assert jobs[0] == jobs[1]
