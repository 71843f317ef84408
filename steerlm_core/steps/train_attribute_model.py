"""train_attribute_model: P(a|x,y) as a regression on annotated texts, where the user has none."""

from __future__ import annotations

from dataclasses import asdict

from steerlm_core import layout
from steerlm_core.steps.annotate import read_texts
from steerlm_core.steps.context import StepContext
from steerlm_core.steps.output import Output
from steerlm_core.store.manifest import Manifest
from steerlm_core.training.attribute_fit import fit_attribute_model


def run(context: StepContext) -> Manifest:
    """Train the attribute model from the prior's trunk; its quality on unseen texts stands in the manifest."""
    config = context.config
    annotated, prior = context.manifest(layout.ANNOTATED), context.manifest(layout.PRIOR)
    output = Output(
        context,
        "train_attribute_model",
        layout.ATTRIBUTE_MODEL,
        {"annotated": annotated.content_digest, "prior": prior.content_digest},
        {"fit": config.attribute_fit, "seed": config.seed, "validation": config.annotated.validation_share},
    )
    if done := output.existing():
        return done
    texts, validation = read_texts(context, "attribute")
    folder = context.scratch / "attribute"
    quality = fit_attribute_model(
        context.store.local_folder(prior),
        texts,
        config.attribute_fit,
        attributes=config.attributes,
        validation=validation,
        output=folder,
        seed=config.seed,
        progress=context.events.progress,
    )
    output.write_folder(folder)
    return output.commit(quality={name: asdict(found) for name, found in quality.items()})
