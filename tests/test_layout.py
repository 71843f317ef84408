"""Every key that layout makes is known for what it is, a real run holds no other, and nobody else spells one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlm_core import layout
from steerlm_core.layout.kinds import Kind, Known, recognise
from steerlm_core.retrain.retention import objects_of
from steerlm_core.store import open_store
from steerlm_core.store.contents import read_contents
from tests.toy.runs import Finished

ROOT = Path(__file__).resolve().parent.parent

NUMBERS = st.integers(0, 20_000)
POLICIES = st.none() | NUMBERS
NAMES = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True)
HASHES = st.text("0123456789abcdef", min_size=layout.HASH_DIGITS, max_size=layout.HASH_DIGITS)
HOLDERS = st.text("0123456789abcdef", min_size=8, max_size=8)
STAGES = st.builds(layout.iteration, NUMBERS) | st.builds(layout.confirmation, POLICIES)
SAMPLES = st.builds(layout.stage_output, STAGES, st.sampled_from(layout.STAGE_OUTPUTS))
TABLES = st.sampled_from([layout.PROMPTS, layout.ANNOTATED]) | SAMPLES | st.builds(layout.evaluation, NUMBERS)
MODELS = st.sampled_from([layout.PRIOR, layout.ATTRIBUTE_MODEL]) | st.builds(layout.policy_model, POLICIES)
OUTPUTS = TABLES | MODELS


@given(NUMBERS, POLICIES, OUTPUTS)
def test_documents_are_known(number, policy, output):
    confirmation = layout.confirmation(policy)
    for key in (
        layout.RUN,
        layout.DECISION,
        layout.commit(number),
        layout.evaluation_document(layout.evaluation(number)),
        layout.confirmation_document(confirmation),
        layout.comparison_document(confirmation),
        layout.manifest(output),
        layout.removed(output),
        *(step.writes(number) for step in layout.ITERATION_STEPS.values()),
    ):
        assert recognise(key) == Known(Kind.DOCUMENT), key


@given(TABLES, SAMPLES, MODELS, NUMBERS, HASHES, NAMES)
def test_what_lies_in_an_output_is_known_with_its_output(table, samples, model, number, content, name):
    assert recognise(layout.part(table, number, content)) == Known(Kind.PART, table)
    assert recognise(layout.model_file(model, content, name)) == Known(Kind.PART, model)
    assert recognise(layout.model_file(model, content, f"adapter/{name}")) == Known(Kind.PART, model)
    assert recognise(layout.record(samples, number)) == Known(Kind.RECORD, samples)


@given(NUMBERS, NUMBERS, HOLDERS, NAMES)
def test_the_work_of_training_is_known_with_the_model_that_it_is_for(number, step, holder, name):
    work = layout.training(number)
    checkpoints, mine = layout.checkpoints(work), Known(Kind.CHECKPOINT, layout.policy_model(number))
    here, there = layout.checkpoint(step), f"{layout.checkpoint(step)}-{holder}"
    assert layout.checkpoint_in(here) == layout.checkpoint_in(there) == here
    assert layout.checkpoint_in(name) == ""
    assert recognise(layout.latest_checkpoint(checkpoints)) == mine
    for folder in (here, there, layout.UNFINISHED_CHECKPOINT + here, layout.UNFINISHED_CHECKPOINT + there):
        assert recognise(f"{checkpoints}/{folder}/{layout.MANIFEST}") == mine
    assert recognise(f"{work}/{layout.unfinished_model(holder)}/{name}") == mine
    assert recognise(f"{work}/{layout.TRAINING_METRICS}") == Known(Kind.TRAINING)


@given(
    st.sampled_from(["prepare", *layout.ITERATION_STEPS, "confirm"]), POLICIES, st.none() | st.tuples(NUMBERS, NUMBERS)
)
def test_leases_are_known_and_say_their_name(step, iteration, shard):
    name = layout.step_lease(step, iteration, shard)
    assert recognise(layout.lease(name)) == Known(Kind.LEASE)
    assert layout.lease_name(layout.lease(name)) == name


@given(NAMES, NUMBERS, HOLDERS, OUTPUTS)
def test_what_no_document_names_is_known(name, number, holder, output):
    assert recognise(layout.probe(4 * holder)) == Known(Kind.LEASE)
    assert recognise(layout.events(name, number)) == Known(Kind.EVENTS)
    for key in (layout.job_verdict, layout.job_outcome, layout.job_heartbeat, layout.job_progress):
        assert recognise(key(name)) == Known(Kind.JOB)
    assert recognise(layout.job_outcome(name, number)) == Known(Kind.JOB)
    assert recognise(layout.job_log(name, name)) == Known(Kind.JOB)
    assert recognise(f"{output}/{layout.WRITING}{name}") == Known(Kind.WRITING)


@given(NAMES)
def test_a_base_root_knows_the_runs_that_have_begun(name):
    run = layout.run_below(name)
    assert layout.run_begun(f"{run}/{layout.RUN}") == name
    for key in (run, f"{run}/{layout.DECISION}", f"{run}/copy/{layout.RUN}", layout.RUN, layout.PROMOTED):
        assert layout.run_begun(key) is None


@pytest.mark.parametrize(
    "key",
    [
        "notes.txt",
        "run.json.bak",
        "runXjson",
        "my/run.json",
        "prompts/prompts.jsonl",
        "prompts/part-0-0123456789ab.parquet",
        "iterations/0/commit.json",
        "iterations/000/notes/manifest.json",
        "iterations/000/candidates/my-part.parquet",
        "iterations/000/model/README.md",
        "iterations/000/groups/0123456789ab/model.safetensors",
        "iterations/readme.txt",
        "models/mine/0123456789ab/model.safetensors",
        "confirmation/policy-1/confirmation.json",
        "thesis/part-00000-0123456789ab.parquet",
        "thesis/train/mine.txt",
        "leases/README.txt",
        layout.PROMOTED,
    ],
)
def test_what_a_run_does_not_name_is_not_ours(key):
    assert recognise(key) is None


def test_a_real_run_holds_nothing_that_layout_does_not_know(finished: Finished):
    store = open_store(str(finished(3)))
    kinds = {found.key: recognise(found.key) for found in store.listing()}
    assert [key for key, known in kinds.items() if known is None] == []
    assert set(objects_of(store)[0]) == set(kinds)
    contents = read_contents(store)
    assert {key for key, known in kinds.items() if known and known.kind is Kind.DOCUMENT} == set(contents.documents)
    parts = {part.key for part in contents.parts()}
    assert {key for key, known in kinds.items() if known and known.kind is Kind.PART} == parts


def test_the_steps_read_and_write_what_the_table_says(finished: Finished):
    store = open_store(str(finished(3)))
    outputs = layout.iteration_outputs(2)
    made = {each.step: each for prefix, each in read_contents(store).manifests.items() if prefix in outputs}
    assert list(made) == [name for name in layout.ITERATION_STEPS if name != "decide"]
    for step in layout.ITERATION_STEPS.values():
        assert store.exists(step.writes(2))
        assert step.name not in made or tuple(made[step.name].inputs) == step.reads
    assert store.document(layout.commit(2)).keys() >= {*layout.ITERATION_STEPS["decide"].reads}


# --------------------------------------------------------------------------------------------- nobody else spells a key

FOLDERS = "iterations|confirmation|candidates|labels|prior_scores|groups|evaluation|leases|jobs|records|checkpoints"
DOCUMENTS = (
    "run|decision|manifest|removed|commit|evaluation|confirmation|comparison|latest|running|finished|promoted|verdict"
    "|outcome|heartbeat|progress|attribute_model"
)
SPELLED = re.compile(
    rf"(?<![\w.])(?:{FOLDERS})/|/(?:{FOLDERS})\b|\b(?:{DOCUMENTS})\.json\b|^(?:events|runs)/(?!details)|\bpolicy-0\b"
    r"|\bmodels/(?:prior|attribute)\b|/(?:model|train)$|(?:^|/)(?:part|step)-(?:\*|$)|\.parquet\b|\.writing-|metrics\.jsonl"
)


def _spelled(source: str) -> Iterator[str]:
    """Yield the strings of a module that spell a key: docstrings may."""
    tree = ast.parse(source)
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield from [node.value] if SPELLED.search(node.value) else []


@pytest.mark.parametrize(
    "line",
    [
        'key = f"iterations/{number:03d}/model"',
        'prefix = f"{stage}/labels"',
        'x = store.exists("run.json")',
        'raise E(f"{root}/{prefix}/manifest.json: missing")',
        'POLICY = "models/policy-0"',
        'lease = f"leases/{name}.json"',
        'heartbeat = f"jobs/{job}/heartbeat.json"',
        'log = "jobs/<job>/logs"',
        'work = f"{stage}/train"',
        'base = f"{root}/" + "runs/mine"',
        'part = f"{prefix}/part-{number:05d}"',
        'newest = folder.glob("step-*")',
        'place = f"{root}/confirmation/{name}"',
    ],
)
def test_a_planted_key_is_seen(line):
    assert list(_spelled(line)) != []


def test_what_only_looks_like_a_key_is_none():
    source = '"""iterations/000 holds commit.json."""\nx = "config.json", "models.prior", "candidates", "runs/details/"'
    assert list(_spelled(source)) == []


def test_nobody_but_layout_spells_a_key():
    sources = [
        path for top in ("steerlm_core", "components", "pipelines", "examples") for path in (ROOT / top).rglob("*.py")
    ]
    assert len(sources) > 200
    found = [
        (path.relative_to(ROOT).as_posix(), text)
        for path in sources
        if path.parent != ROOT / "steerlm_core/layout"
        for text in _spelled(path.read_text())
    ]
    assert found == []
