"""bootstrap: policy 0 by SteerLM v1, attribute-conditioned supervised fine-tuning of the prior."""

from __future__ import annotations

from steerlm_core import layout
from steerlm_core.steps.annotate import read_texts
from steerlm_core.steps.context import StepContext
from steerlm_core.steps.output import Output
from steerlm_core.store.manifest import Manifest
from steerlm_core.training.supervised import fit_sft, sft_examples


def run(context: StepContext) -> Manifest:
    """Fine-tune the prior to its best validation loss; returns the manifest of policy 0."""
    config = context.config
    annotated, prior = context.manifest(layout.ANNOTATED), context.manifest(layout.PRIOR)
    output = Output(
        context,
        "bootstrap",
        layout.policy_model(None),
        {"annotated": annotated.content_digest, "prior": prior.content_digest},
        {"fit": config.bootstrap_fit, "seed": config.seed, "format": config.prompts.format,
         "validation": config.annotated.validation_share},
    )  # fmt: skip
    if done := output.existing():
        return done
    folder, base = context.scratch / "bootstrap", context.store.local_folder(prior)
    tokenizer = context.models.tokenizer(base)
    train, validation = (
        sft_examples(texts, config.attributes, config.prompts.format, tokenizer)
        for texts in read_texts(context, "bootstrap")
    )
    result = fit_sft(
        base,
        train,
        config.bootstrap_fit,
        validation=validation,
        output=folder,
        seed=config.seed,
        progress=context.events.progress,
    )
    output.write_folder(folder)
    return output.commit(
        tokens=result.tokens, best_epoch=result.best_epoch, validation_losses=list(result.validation_losses)
    )
