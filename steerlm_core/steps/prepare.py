"""prepare: once a run. Prompts are drawn, models are placed in the run, what is missing is made.

    prompts, targets ─► prompt set (train, held-out)
    prior ─► models/prior    attribute model ─► models/attribute    SteerLM v1 ─► models/policy-0

Everything that can be wrong with what the user gave is found by `preflight`, before the first
write.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from transformers import AutoTokenizer

from steerlm_core import layout
from steerlm_core.config import RunConfig, digest, local_path
from steerlm_core.models.loading import check_same_vocabulary, context_length, end_token_id, resolve_model
from steerlm_core.raters import check_raters
from steerlm_core.steps import annotate, bootstrap, train_attribute_model
from steerlm_core.steps.context import StepContext
from steerlm_core.steps.output import Output
from steerlm_core.steps.prompt_set import draw_pairs, read_prompts, tokenise
from steerlm_core.store.manifest import Manifest


@dataclass(frozen=True)
class Preflight:
    """What preflight found: ready to be written."""

    prompts: pa.Table
    prior: Path
    warnings: list[str]


def preflight(config: RunConfig, fetch: Callable[[str], Path] = local_path) -> Preflight:
    """Check everything that the user gave, without writing to the run.

    Args:
        config: The configuration.
        fetch: Brings a file or a folder here that lies elsewhere.

    Raises:
        SteerLMError: Of the kind that fits, with the place and the way out.
    """
    check_raters(config.raters)
    prompts, skipped = read_prompts(config, fetch)
    pairs = draw_pairs(prompts, config)
    annotate.check_source(config, fetch)
    prior = resolve_model(config.models.prior, config.seed, "models.prior", fetch=fetch)
    tokenizer = AutoTokenizer.from_pretrained(prior)
    end_token_id(tokenizer, "models.prior")
    if config.models.policy is not None:
        policy = resolve_model(config.models.policy, config.seed, "models.policy", fetch=fetch)
        check_same_vocabulary(prior, policy)
    table = tokenise(pairs, config, tokenizer, context_length(prior))
    return Preflight(table, prior, [f"skipped {line}" for line in skipped])


def run(context: StepContext) -> Manifest:
    """Write the prompt set and the models of the run; returns the manifest of the prompt set.

    The prompt set is written last. Where it stands all is done, and what the user gave is not needed again.
    """
    if context.store.exists(layout.manifest(layout.PROMPTS)):
        return context.manifest(layout.PROMPTS)
    found = preflight(context.config, context.fetch)
    for warning in found.warnings:
        context.events.warning(warning)
    _place_model(context, layout.PRIOR, found.prior, context.config.models.prior)
    models = context.config.models
    _given_or_made(context, layout.ATTRIBUTE_MODEL, "models.attribute", models.attribute, train_attribute_model.run)
    _given_or_made(context, layout.policy_model(None), "models.policy", models.policy, bootstrap.run)
    return _write_prompts(context, found.prompts)


def _place_model(context: StepContext, prefix: str, folder: Path, reference: str) -> Manifest:
    """Copy a model that exists into the run."""
    output = Output(context, "prepare", prefix, {}, {"reference": reference, "seed": context.config.seed})
    if done := output.existing():
        return done
    output.write_folder(folder)
    return output.commit()


def _given_or_made(
    context: StepContext, prefix: str, field: str, given: str | None, make: Callable[[StepContext], Manifest]
) -> None:
    """Place the model that the user gave, or make it from annotated texts."""
    if given is None:
        annotate.run(context)
        make(context)
    else:
        _place_model(context, prefix, resolve_model(given, context.config.seed, field, fetch=context.fetch), given)


def _write_prompts(context: StepContext, table: pa.Table) -> Manifest:
    """Write the prompt set in parts of a fixed number of prompts, each of one split."""
    config = context.config
    inputs = {"pairs": digest([table["group_id"].to_pylist(), table["policy_prompt_ids"].to_pylist()])}
    output = Output(context, "prepare", layout.PROMPTS, inputs, {"prompts": config.prompts})
    if done := output.existing():
        return done
    for split in ("held_out", "train"):
        rows = table.filter(pc.equal(table["split"], split))
        for start in range(0, rows.num_rows, config.prompts.prompts_per_part):
            output.write_table(rows.slice(start, config.prompts.prompts_per_part), split)
    return output.commit(groups=table.num_rows)
