"""The platform file: what a platform team gets told about it."""

import pytest
from pydantic import BaseModel

from steerlm_core.errors import ConfigError
from steerlm_core.platform import PlatformConfig, load_platform


def load(tmp_path, text):
    path = tmp_path / "platform.yaml"
    path.write_text(text)
    return load_platform(path)


def test_an_empty_file_is_the_defaults(tmp_path):
    assert load(tmp_path, "") == PlatformConfig()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train_job: {nods: 3}", ["train_job.nods: unknown key; did you mean 'nodes'?"]),
        ("train_job: {accelerator: {nam: amd.com/gpu}}", ["did you mean 'name'?", "Known here: count, name."]),
        ("train_job: {resources: {memory: 16 GB}}", ["train_job.resources.memory", "'16 GB'"]),
        ("train_job: {nodes: 0, max_attempts: 0}", ["2 mistake(s)", "train_job.nodes", "train_job.max_attempts"]),
        ("train_job: {orphan_after_seconds: 30}", ["orphan_after_seconds is 30", "heartbeat_seconds = 20"]),
        ("train_job: [1]", ["train_job"]),
        ("- 1", ["expected a mapping of settings, found list"]),
        ("a: [", ["not valid YAML"]),
    ],
)
def test_a_mistake_is_named_with_its_place_and_the_way_out(tmp_path, text, words):
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    for word in (str(tmp_path / "platform.yaml"), *words):
        assert word in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read .* --platform"):
        load_platform(tmp_path / "none.yaml")


def test_quantities_may_be_written_as_numbers(tmp_path):
    assert load(tmp_path, "train_job: {resources: {cpu: 2}}").train_job.resources.cpu == "2"


@pytest.mark.parametrize(
    ("text", "processes"),
    [
        ("", 1),
        ("accelerator: {name: nvidia.com/gpu, count: 8}", 8),
        ("accelerator: {name: nvidia.com/gpu, count: 8}\n  processes_per_node: 4", 4),
        ("processes_per_node: 2", 2),
    ],
)
def test_a_pod_has_a_process_for_each_accelerator_unless_said_otherwise(tmp_path, text, processes):
    assert load(tmp_path, f"train_job:\n  {text}\n  nodes: 2").train_job.processes == processes


def test_every_field_says_what_it_is():
    def fields(model, place):
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield from fields(field.annotation, f"{place}.{name}")
            else:
                yield f"{place}.{name}", field.description

    assert [name for name, description in fields(PlatformConfig, "platform") if not description] == []
