"""The arms of the method test: policy 0, v2 after the loop, and the control, all judged alike.

The control is SteerLM v1 trained on: policy 0's own objective on policy 0's own texts, for as many
tokens as v2's training saw. Every arm samples afresh on the held-out pairs with the same noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlm_core import layout
from steerlm_core.config import RunConfig
from steerlm_core.observe.events import EventLog
from steerlm_core.steps import confirm
from steerlm_core.steps.annotate import read_texts
from steerlm_core.steps.context import Stage, StepContext
from steerlm_core.steps.output import Output
from steerlm_core.training.supervised import fit_sft, sft_examples
from tests.runs import loop_at, run_at

_DRAW = 3_000_000  # no stage of a run draws under this number


@dataclass(frozen=True)
class Arm:
    """One policy on fresh held-out samples."""

    name: str
    seed: int
    distance: dict[str, float]
    steering: dict[str, dict[str, float]]
    ess: float
    tokens: int


def run_arms(config: RunConfig, root: Path) -> tuple[dict[str, Arm], dict[str, Any]]:
    """Run the loop at `root`, then judge the three arms; returns them and how the loop ended."""
    outcome = loop_at(root, config)
    with EventLog("method", None).step("arms") as events:
        context = run_at(root).context(events)
        tokens = _tokens_of_v2(context)
        _train_control(context, tokens)
        best = outcome["best_iteration"]
        policies = {
            "policy 0": (layout.policy_model(None), 0),
            "v2": (layout.policy_model(best), tokens),
            "v1 trained on": ("arms/control", tokens),
        }
        return {name: _judge(context, name, *policy) for name, policy in policies.items()}, outcome


def _judge(context: StepContext, name: str, policy: str, tokens: int) -> Arm:
    stage = Stage(f"fresh/{name.replace(' ', '-')}", policy, ("held_out",), _DRAW)
    found = confirm.run(context.at(stage))
    return Arm(name, context.config.seed, found["distance"], found["steering"], found["ess_median"], tokens)


def _tokens_of_v2(context: StepContext) -> int:
    """Tokens of all training groups of all iterations, as often as training saw them, prompts once a group."""
    tokens, iteration = 0, 0
    while context.store.exists(layout.commit(iteration)):
        for _, table in context.tables(f"iterations/{iteration:03d}/groups", ["train"]):
            for group in table.to_pylist():
                kept = [len(ids) for ids, valid in zip(group["responses"], group["valid"], strict=True) if valid]
                tokens += len(group["prompt_ids"]) + sum(kept)
        iteration += 1
    return tokens * context.config.train.epochs


def _train_control(context: StepContext, tokens: int) -> None:
    """Train SteerLM v1 on: policy 0 further, on its own texts."""
    config = context.config
    policy = context.manifest(layout.policy_model(None))
    output = Output(context, "control", "arms/control", {"policy": policy.content_digest}, {"tokens": tokens})
    if output.existing():
        return
    start, folder = context.store.local_folder(policy), context.scratch / "control"
    tokenizer = context.models.tokenizer(start)
    train, validation = (
        sft_examples(texts, config.attributes, config.prompts.format, tokenizer)
        for texts in read_texts(context, "bootstrap")
    )
    fit_sft(
        start, train, config.bootstrap_fit, validation=validation, output=folder, seed=config.seed, max_tokens=tokens
    )
    output.write_folder(folder)
    output.commit()
