"""annotate: texts with a level for each attribute, where the user has no attribute model or SteerLM v1 model.

Three sources: a JSON-lines file that people annotated; stories of the embedded grammar; responses
sampled from the prior. The last two are annotated by the measured raters. Two tables come out,
drawn apart: the texts of the attribute model, and those of the SteerLM v1 bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from steerlm_core import layout
from steerlm_core.annotated_text import AnnotatedText, check_annotated
from steerlm_core.config import GenerateConfig, RunConfig, local_path
from steerlm_core.embedded.annotated import ATTRIBUTE_TEXTS, BOOTSTRAP_TEXTS, annotate, annotated_stories
from steerlm_core.errors import ConfigError, DataError
from steerlm_core.models.loading import end_token_id
from steerlm_core.prompts import prompt_ids
from steerlm_core.sampling.sampler import Draw, noise_key, sample
from steerlm_core.schemas import ANNOTATED
from steerlm_core.steps.context import StepContext
from steerlm_core.steps.output import Output
from steerlm_core.steps.prompt_set import draw_pairs, read_json_lines, read_prompts
from steerlm_core.store.manifest import Manifest

ROLES = ("attribute", "bootstrap")
_PRIOR_DRAW = 2_000_000  # names the random draws of the prior's samples
_SHUFFLE_STREAM = 13


def check_source(config: RunConfig, fetch: Callable[[str], Path] = local_path) -> None:
    """Check the annotated source, if the run needs one, without making anything.

    Raises:
        ConfigError: An attribute has neither a rater nor a source of levels.
        DataError: The file is missing or malformed.
    """
    if config.models.attribute is not None and config.models.policy is not None:
        return
    if config.annotated.source in ("embedded:stories", "prior"):
        missing = [name for name in config.attribute_names if name not in config.raters]
        if missing:
            raise ConfigError(
                f"raters: none for {', '.join(missing)}, but annotated.source is '{config.annotated.source}', whose "
                "texts are annotated by the measured raters. Name a rater for each, or give an annotated file."
            )
    else:
        read_annotated(config, fetch)


def run(context: StepContext) -> Manifest:
    """Write the annotated texts; returns their manifest, with the two roles as its splits."""
    config = context.config
    prior = context.manifest(layout.PRIOR)
    output = Output(
        context,
        "annotate",
        layout.ANNOTATED,
        {"prior": prior.content_digest},
        {"annotated": config.annotated, "raters": config.raters, "seed": config.seed, "prompts": config.prompts,
         "max_new_tokens": config.generate.max_new_tokens, "truncated": config.generate.truncated,
         "attributes": [spec.model_dump() for spec in config.attributes]},
    )  # fmt: skip
    if done := output.existing():
        return done
    for role, texts in zip(ROLES, _texts(context), strict=True):
        check_annotated(texts, config.attributes, config.annotated.source)
        output.write_table(_table(texts), role)
    return output.commit()


def read_texts(context: StepContext, role: str) -> tuple[list[AnnotatedText], list[AnnotatedText]]:
    """Return the texts of a role: those to train on, and those to validate on."""
    texts = [
        AnnotatedText(row["prompt"], row["response"], tuple(row["levels"]), row["complete"])
        for _, table in context.tables(layout.ANNOTATED, [role])
        for row in table.to_pylist()
    ]
    cut = max(1, round(len(texts) * context.config.annotated.validation_share))
    return texts[cut:], texts[:cut]


def _texts(context: StepContext) -> tuple[Sequence[AnnotatedText], Sequence[AnnotatedText]]:
    """The texts of both roles."""
    config, wanted = context.config, context.config.annotated
    if wanted.source == "embedded:stories":
        counts = ((wanted.attribute_texts, ATTRIBUTE_TEXTS), (wanted.bootstrap_texts, BOOTSTRAP_TEXTS))
        first, second = (
            annotated_stories(count, config.seed, stream, config.attributes, config.raters) for count, stream in counts
        )
        return first, second
    total = wanted.attribute_texts + wanted.bootstrap_texts
    texts = _from_prior(context, total) if wanted.source == "prior" else read_annotated(config, context.fetch)
    order = np.random.default_rng([config.seed, _SHUFFLE_STREAM]).permutation(len(texts))[:total]
    cut = round(len(order) * wanted.bootstrap_texts / total)
    return [texts[i] for i in order[cut:]], [texts[i] for i in order[:cut]]


def read_annotated(config: RunConfig, fetch: Callable[[str], Path] = local_path) -> list[AnnotatedText]:
    """Read the annotated file: `prompt`, `response` and one key an attribute; a missing one is not annotated.

    Raises:
        DataError: The file is missing or too short, or a line is malformed; with its number.
    """
    path = fetch(config.annotated.source)
    texts = []
    for number, row in read_json_lines(path, "annotated.source"):
        if isinstance(row, str) or not all(isinstance(row.get(key), str) for key in ("prompt", "response")):
            problem = row if isinstance(row, str) else "needs `prompt` and `response` as texts"
            raise DataError(f"{path}:{number}: {problem}.")
        levels = [row.get(name, float("nan")) for name in config.attribute_names]
        if not all(isinstance(level, int | float) for level in levels):
            raise DataError(f"{path}:{number}: levels must be numbers, found {levels}.")
        texts.append(AnnotatedText(row["prompt"], row["response"], tuple(float(level) for level in levels)))
    if len(texts) < 2 * len(ROLES):
        raise DataError(f"{path}: {len(texts)} annotated text(s); the attribute model and the bootstrap need more.")
    return texts


def _from_prior(context: StepContext, count: int) -> list[AnnotatedText]:
    """Sample responses from the prior on the training prompts, and annotate them.

    Responses cut by the length limit are left out or kept as everywhere: by `generate.truncated`.
    """
    config = context.config
    folder = context.store.local_folder(context.manifest(layout.PRIOR))
    model, tokenizer = context.models.causal_lm(folder, config.models.dtype), context.models.tokenizer(folder)
    pairs = draw_pairs(read_prompts(config, context.fetch)[0], config)
    prompts = list(islice(cycle(dict.fromkeys(pair.prompt for pair in pairs if pair.split == "train")), count))
    ids = {prompt: tuple(prompt_ids(prompt, None, config.prompts.format, tokenizer)) for prompt in prompts}
    draws = [Draw(ids[p], noise_key(config.seed, _PRIOR_DRAW, p, i)) for i, p in enumerate(prompts)]
    plain = GenerateConfig(max_new_tokens=config.generate.max_new_tokens, batch=config.generate.batch)
    end = end_token_id(tokenizer, "models.prior")
    samples = sample(model, draws, plain, end, lambda done, of: context.events.progress(done, of, "texts"))
    keep = config.generate.truncated == "keep"
    kept = [(p, drawn) for p, drawn in zip(prompts, samples, strict=True) if drawn.complete or keep]
    if len(kept) < 2 * len(ROLES):
        raise DataError(
            f"annotated.source: of {count} responses of the prior only {len(kept)} end within generate.max_new_tokens "
            f"= {config.generate.max_new_tokens}. Raise it, set generate.truncated: keep, or give an annotated file."
        )
    texts = ((prompt, str(tokenizer.decode(drawn.ids, skip_special_tokens=True))) for prompt, drawn in kept)
    annotated = annotate(texts, config.attributes, config.raters)
    return [replace(text, complete=drawn.complete) for text, (_, drawn) in zip(annotated, kept, strict=True)]


def _table(texts: Sequence[AnnotatedText]) -> pa.Table:
    columns = {
        "prompt": [text.prompt for text in texts],
        "response": [text.response for text in texts],
        "levels": [list(text.levels) for text in texts],
        "complete": [text.complete for text in texts],
    }
    return pa.table(columns, schema=ANNOTATED)
