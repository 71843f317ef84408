"""prepare: once a run. Prompts are drawn, models are placed in the run, what is missing is made.

    prompts, targets ─► prompt set (train, held-out)
    prior ─► models/prior    attribute model ─► models/attribute    SteerLM v1 ─► models/policy-0

Everything that can be wrong with what the user gave is found by `preflight`, before the first
write. It needs no weights: those are made, unpacked or fetched by the step alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from steerlm_core import layout
from steerlm_core.config import RunConfig, digest, local_path
from steerlm_core.models.loading import end_token_id
from steerlm_core.models.outline import Outline, check_same_vocabulary, read_outline
from steerlm_core.progress import Progress, unheard
from steerlm_core.raters import check_raters
from steerlm_core.steps import annotate, bootstrap, train_attribute_model
from steerlm_core.steps.context import StepContext
from steerlm_core.steps.output import Output
from steerlm_core.steps.prompt_set import Pair, draw_pairs, read_prompts, tokenise
from steerlm_core.steps.references import outline_model, resolve_model
from steerlm_core.store.manifest import Manifest


def preflight(config: RunConfig, fetch: Callable[[str], Path] = local_path) -> list[str]:
    """Check everything that the user gave, without writing anything and without the models' weights.

    Args:
        config: The configuration.
        fetch: Brings a file or a folder here that lies elsewhere.

    Returns:
        What is wrong with the prompt lines that are left out.

    Raises:
        SteerLMError: Of the kind that fits, with the place and the way out.
    """
    pairs, skipped = _draw(config, fetch)
    models = config.models
    given = {"prior": models.prior, "policy": models.policy, "attribute": models.attribute}
    known = {
        name: outline_model(reference, config.seed, f"models.{name}", fetch)
        for name, reference in given.items()
        if reference is not None
    }
    if "policy" in known:
        check_same_vocabulary(known["prior"], known["policy"])
    _tokenise(pairs, config, known["prior"])
    return skipped


def run(context: StepContext) -> Manifest:
    """Write the prompt set and the models of the run; returns the manifest of the prompt set.

    The prompt set is written last. Where it stands all is done, and what the user gave is not needed again; nor is a
    model that stands in the run already.
    """
    if context.store.exists(layout.manifest(layout.PROMPTS)):
        return context.manifest(layout.PROMPTS)
    pairs, skipped = _draw(context.config, context.fetch)
    for line in skipped:
        context.events.warning(f"skipped {line}")
    models = context.config.models
    prior = _place_model(context, layout.PRIOR, "models.prior", models.prior)
    folder = prior or context.store.local_folder(context.manifest(layout.PRIOR))
    prompts = _tokenise(pairs, context.config, read_outline(folder, "models.prior"), context.events.progress)
    _given_or_made(context, layout.ATTRIBUTE_MODEL, "models.attribute", models.attribute, train_attribute_model.run)
    _given_or_made(context, layout.policy_model(None), "models.policy", models.policy, bootstrap.run)
    return _write_prompts(context, prompts)


def _draw(config: RunConfig, fetch: Callable[[str], Path]) -> tuple[list[Pair], list[str]]:
    """Check what needs no model; returns the pairs, and what is wrong with the lines left out."""
    check_raters(config.raters)
    prompts, skipped = read_prompts(config, fetch)
    pairs = draw_pairs(prompts, config)
    annotate.check_source(config, fetch)
    return pairs, skipped


def _tokenise(pairs: list[Pair], config: RunConfig, prior: Outline, progress: Progress = unheard) -> pa.Table:
    end_token_id(prior.tokenizer, "models.prior")
    return tokenise(pairs, config, prior.tokenizer, prior.context, progress)


def _place_model(context: StepContext, prefix: str, field: str, reference: str) -> Path | None:
    """Copy a model of the user's into the run; returns where it lies here, None where the run has it already."""
    seed = context.config.seed
    output = Output(context, "prepare", prefix, {}, {"reference": reference, "seed": seed})
    if output.existing():
        return None
    folder = resolve_model(reference, seed, field, context.events.progress, context.fetch)
    output.write_folder(folder)
    output.commit()
    return folder


def _given_or_made(
    context: StepContext, prefix: str, field: str, given: str | None, make: Callable[[StepContext], Manifest]
) -> None:
    """Place the model that the user gave, or make it from annotated texts."""
    if given is not None:
        _place_model(context, prefix, field, given)
    else:
        annotate.run(context)
        make(context)


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
