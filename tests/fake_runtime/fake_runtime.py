"""Stands in for the modules that components call: the same calls, noted in ROOT/calls.jsonl, and empty commits.

FAKE_STOP_AT: the iteration that decides to stop. FAKE_GATE: what the gate says for 'run'. FAKE_FAIL: the step that
fails, by a user's mistake or as FAKE_ERROR says.
"""

import json
import os
from contextlib import contextmanager
from pathlib import Path

from steerlm_core import errors

STANDS_FOR = ("begin", "run", "runtime", "report.html", "report.markdown")


class Run(str):
    """A run is no more than its root."""

    root = property(str)

    def release_models(self):
        pass

    def gate(self, iteration, max_iterations):
        max_iterations = max_iterations or _configured(self)
        if Path(self, "decision.json").exists() or iteration >= max_iterations:
            return "stop"
        if iteration and not _commit(self, iteration - 1).exists():
            raise errors.RunStateError(f"{self}: iteration {iteration - 1} has no commit.")
        return os.environ.get("FAKE_GATE", "run")


def open_run(root):
    return Run(root)


def open_or_create_run(store, config):
    return Run(store.root)


@contextmanager
def opened(root):
    yield Run(root)


def begin(root, base_root, config, config_uri, job, max_iterations, room):
    if not root:
        return None
    _called(root, "begin", config=config, config_uri=config_uri, max_iterations=int(max_iterations), room=int(room))
    return Run(root)


def prepare(root, shards):
    _called(root, "prepare", shards=shards)
    return [f"{index}/{int(shards)}" for index in range(int(shards))]


def run_step(root, name, iteration, shard="0/1"):
    print(f"{name} speaks")
    _called(root, name, iteration=int(iteration), **({"shard": shard} if shard != "0/1" else {}))
    if name == "decide":
        _commit(root, iteration).parent.mkdir(parents=True, exist_ok=True)
        _commit(root, iteration).write_text("{}")
        if str(iteration) == os.environ.get("FAKE_STOP_AT"):
            Path(root, "decision.json").write_text("{}")
    return {"groups": 4, "distance": float("nan"), "reason": "a sentence", "rows": [1, 2]}


def confirm(root):
    _called(root, "confirm")
    return {"distance": 0.25}


def finish(root, max_iterations):
    _called(root, "finish")
    return {"promoted": False, "words": "Not promoted."}


def write_html(runs, path, upto=None):
    path.write_text(f"<title>{runs[0]} {upto}</title>")


def write_markdown(root, path):
    _called(root, "report")
    path.write_text("# A run\n")


def _configured(root):
    name, arguments = json.loads(Path(root, "calls.jsonl").read_text().splitlines()[0])
    assert name == "begin"
    return arguments["config"]["max_iterations"]


def _commit(root, iteration):
    return Path(root, f"iterations/{iteration:03d}/commit.json")


def _called(root, name, **arguments):
    if name == os.environ.get("FAKE_FAIL"):
        if os.environ.get("FAKE_ERROR") == "crash":
            raise ZeroDivisionError("division by zero")
        raise errors.DataError("prompts.jsonl: 2 lines are no JSON\n  line 3: {\n\n  line 7: [")
    Path(root).mkdir(parents=True, exist_ok=True)
    with Path(root, "calls.jsonl").open("a") as calls:
        calls.write(json.dumps([name, arguments]) + "\n")
