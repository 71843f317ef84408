"""Where everything of a run lies: every key of a run root and of a base root, and the order of the steps.

    <root>/run.json                           the run: configuration, versions, seeds; written once
           prompts/  annotated/               what the loop starts from: tables, and models
           models/{prior,attribute,policy-0}/
           iterations/NNN/{candidates,labels,prior_scores,groups}/   what an iteration sampled, judged and weighed
                          {model,evaluation}/                        what it trained, and how good that is
                          train/                                     training's own folder
                          commit.json                                written last: the iteration is done
           decision.json                      why the loop has stopped
           confirmation/{policy-0,iteration-NNN}/{candidates,…}/  confirmation.json  comparison.json
           leases/  events/  jobs/            who is at work, what was said, and what training jobs have left

    <base root>/runs/NAME/…  running.json  finished.json  promoted.json

Keys are relative to their root. An *output* is a prefix with parts and, written last, a manifest; a *stage* is a prefix
with the four outputs of one pass of generate, label, score_prior and weigh. A policy is named by the iteration that
trained it, policy 0 by None. Nobody else spells a key, and nothing is read or written here. `steerlm_core.layout.kinds`
goes the other way: what a key is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

# ------------------------------------------------------------------------------------------- what the loop starts from

RUN, DECISION = "run.json", "decision.json"
PROMPTS, ANNOTATED = "prompts", "annotated"
PRIOR, ATTRIBUTE_MODEL = "models/prior", "models/attribute"
POLICY_0 = "policy-0"
ATTRIBUTE_INFO = "attribute_model.json"  # in an attribute model's folder: what it says of itself

# ------------------------------------------------------------------------------------------------ stages and iterations

StageOutput = Literal["candidates", "labels", "prior_scores", "groups"]
STAGE_OUTPUTS: tuple[StageOutput, ...] = get_args(StageOutput)


def iteration(number: int) -> str:
    """The stage of an iteration."""
    return f"iterations/{number:03d}"


def stage_output(stage: str, name: StageOutput) -> str:
    """One output of a stage."""
    return f"{stage}/{name}"


def stage_outputs(stage: str) -> tuple[str, ...]:
    """The outputs of a stage, in their order."""
    return tuple(stage_output(stage, name) for name in STAGE_OUTPUTS)


def policy_model(trained_in: int | None) -> str:
    """The model that an iteration trained; None: policy 0."""
    return f"models/{POLICY_0}" if trained_in is None else f"{iteration(trained_in)}/model"


def evaluation(trained_in: int) -> str:
    """The evaluation of the policy that an iteration trained: an output with a table of its groups."""
    return f"{iteration(trained_in)}/evaluation"


def evaluation_document(evaluation: str) -> str:
    """What an evaluation found, beside its manifest, for people and programs."""
    return f"{evaluation}/evaluation.json"


def iteration_outputs(number: int) -> tuple[str, ...]:
    """All outputs of an iteration, in their order."""
    return (*stage_outputs(iteration(number)), policy_model(number), evaluation(number))


def commit(number: int) -> str:
    """The commit of an iteration."""
    return f"{iteration(number)}/commit.json"


# Of prepare, which has annotate, train_attribute_model and bootstrap make what the user does not give.
BEFORE_THE_LOOP = (PROMPTS, PRIOR, ANNOTATED, ATTRIBUTE_MODEL, policy_model(None))

# ---------------------------------------------------------------------------------------------------- the confirmation


def confirmation(policy: int | None) -> str:
    """The stage that confirms a policy."""
    return f"confirmation/{POLICY_0 if policy is None else f'iteration-{policy:03d}'}"


def confirmation_document(confirmation: str) -> str:
    """What a confirmation found."""
    return f"{confirmation}/confirmation.json"


def comparison_document(confirmation: str) -> str:
    """How the policy that is confirmed compares with the one that the run started from."""
    return f"{confirmation}/comparison.json"


# ---------------------------------------------------------------------------------------------- what lies in an output

MANIFEST = "manifest.json"
HASH_DIGITS = 12  # of the hash of its content in the name of a part or of a model's folder


def manifest(output: str) -> str:
    """The manifest of an output: written last, it names the parts."""
    return f"{output}/{MANIFEST}"


def removed(output: str) -> str:
    """The note that the parts of an output were removed on purpose; its manifest stays."""
    return f"{output}/removed.json"


def part(output: str, number: int, content: str) -> str:
    """A part of a table, by the hash of its content."""
    return f"{output}/part-{number:05d}-{content}.parquet"


def model_file(output: str, content: str, name: str) -> str:
    """A file of a model, below the hash of the whole folder's content."""
    return f"{output}/{content}/{name}"


def record(output: str, number: int) -> str:
    """What became of one part of an output that is not whole yet."""
    return f"{output}/records/{number:05d}.json"


# ------------------------------------------------------------------------------------------------------------- training

# In training's own folder.
CHECKPOINTS, TRAINING_METRICS, TORCHRUN_LOG = "checkpoints", "metrics.jsonl", "torchrun.log"
CHECKPOINT, UNFINISHED_CHECKPOINT = "step-", ".unfinished-"  # what names in the folder of checkpoints begin with


def training(number: int) -> str:
    """The folder that training works in, in one iteration."""
    return f"{iteration(number)}/train"


def unfinished_model(holder: str) -> str:
    """Name of the folder in training's own that a model is written to, by whoever trains."""
    return f"model-{holder}"


def checkpoints(training: str) -> str:
    """The checkpoints of a training."""
    return f"{training}/{CHECKPOINTS}"


def checkpoint(step: int) -> str:
    """Name of the checkpoint after a step; names sort by it."""
    return f"{CHECKPOINT}{step:08d}"


def checkpoint_in(name: str) -> str:
    """Return the part of the name of a checkpoint, here or in a bucket, that `checkpoint` made; empty where none is."""
    found = re.match(rf"{CHECKPOINT}\d+", name)
    return found[0] if found else ""


def latest_checkpoint(checkpoints: str) -> str:
    """Names the checkpoint to go on from, where training's folder is not the run root's own."""
    return f"{checkpoints}/latest.json"


def job_verdict(job: str) -> str:
    """How the launcher judged an attempt; written once."""
    return f"{JOBS}{job}/verdict.json"


def job_outcome(job: str, node: int = 0) -> str:
    """How the pod of a node says that it ended."""
    return f"{JOBS}{job}/outcome{f'-{node}' if node else ''}.json"


def job_heartbeat(job: str) -> str:
    """The launcher's sign of life."""
    return f"{JOBS}{job}/heartbeat.json"


def job_progress(job: str) -> str:
    """How far the pod of rank 0 is."""
    return f"{JOBS}{job}/progress.json"


def job_logs(job: str) -> str:
    """The folder of the logs of failed pods."""
    return f"{JOBS}{job}/logs"


def job_log(job: str, pod: str) -> str:
    """The log of one failed pod."""
    return f"{job_logs(job)}/{pod}.log"


# ------------------------------------------------------------------------------------------- beside what documents name

LEASES, EVENTS, JOBS = "leases/", "events/", "jobs/"
ALONGSIDE = (EVENTS, JOBS)  # of the run's past; no document names what lies there, and nobody verifies it
WRITING, LOCK = ".writing-", ".lock"  # a file that is being written, and what writers in a directory take in turn


def step_lease(step: str, iteration: int | None = None, shard: tuple[int, int] | None = None) -> str:
    """Name of the lease of a step; of a shard by its index and the number of all."""
    of_iteration = "" if iteration is None else f"{iteration:03d}-"
    return f"{of_iteration}{step}" + (f"-{shard[0]}of{shard[1]}" if shard else "")


def lease(name: str) -> str:
    """The lease of that name."""
    return f"{LEASES}{name}.json"


def lease_name(key: str) -> str:
    """Return the name of a lease."""
    return key.removeprefix(LEASES).removesuffix(".json")


def probe(token: str) -> str:
    """What is written to find out whether the store can be trusted."""
    return f"{LEASES}probe-{token}"


def events_file(writer: str, number: int) -> str:
    """Name of a file of events."""
    return f"{writer}-{number}.jsonl"


def events(writer: str, number: int) -> str:
    """What a writer has said; the next number where the one before is full, or another process's."""
    return EVENTS + events_file(writer, number)


# -------------------------------------------------------------------------------------------------------- the base root

RUNS = "runs/"
RUNNING, FINISHED, PROMOTED = "running.json", "finished.json", "promoted.json"


def run_below(name: str) -> str:
    """The root of a run, below its base root."""
    return f"{RUNS}{name}"


def run_begun(key: str) -> str | None:
    """Return the name of the run that an object of a base root is the `run.json` of; None where it is another."""
    found = re.fullmatch(f"{run_below('([^/]+)')}/{re.escape(RUN)}", key)
    return found[1] if found else None


# ------------------------------------------------------------------------------------------------------------ the steps


@dataclass(frozen=True)
class Step:
    """A step of a run.

    Attributes:
        name: Its name, and that of its module in `steerlm_core.steps` and of its component.
        reads: What it reads, as its manifest names it.
        writes: The document that it writes last, by the number of the iteration: where it stands, it is done.
    """

    name: str
    reads: tuple[str, ...]
    writes: Callable[[int], str]


def _writes(name: StageOutput) -> Callable[[int], str]:
    return lambda number: manifest(stage_output(iteration(number), name))


# Of an iteration, in their order; label and score_prior do not need each other.
ITERATION_STEPS = {
    step.name: step
    for step in (
        Step("generate", ("prompts", "policy"), _writes("candidates")),
        Step("label", ("candidates", "attribute"), _writes("labels")),
        Step("score_prior", ("candidates", "prior"), _writes("prior_scores")),
        Step("weigh", ("candidates", "labels", "prior_scores"), _writes("groups")),
        Step("train", ("groups", "policy"), lambda number: manifest(policy_model(number))),
        Step("evaluate", ("groups", "model"), lambda number: evaluation_document(evaluation(number))),
        Step("decide", ("model", "evaluation"), commit),
    )
}
