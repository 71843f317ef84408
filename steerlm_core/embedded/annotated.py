"""Texts annotated by the measured raters: stories of the grammar, or responses of any model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from steerlm_core.annotated_text import AnnotatedText, nearest_level
from steerlm_core.attributes import AttributeSpec
from steerlm_core.embedded.stories import write_stories
from steerlm_core.raters import measure

# Streams of stories: nothing that is learned from is validated on, and no text of one set is drawn for another.
PRETRAINING, PRETRAINING_VALIDATION, ATTRIBUTE_TEXTS, BOOTSTRAP_TEXTS = range(4)


def annotated_stories(
    count: int, seed: int, stream: int, attributes: Sequence[AttributeSpec], raters: Mapping[str, str]
) -> list[AnnotatedText]:
    """Write stories and annotate them.

    Args:
        count: Number of stories.
        seed: Same seed and stream, same stories.
        stream: `ATTRIBUTE_TEXTS` or `BOOTSTRAP_TEXTS`.
        attributes: The attributes of the run.
        raters: Name of the measured rater by attribute name.
    """
    stories = write_stories(count, seed, stream)
    return annotate(((story.prompt, story.text) for story in stories), attributes, raters)


def annotate(
    texts: Iterable[tuple[str, str]], attributes: Sequence[AttributeSpec], raters: Mapping[str, str]
) -> list[AnnotatedText]:
    """Annotate (prompt, response) pairs with the integer level nearest to what the raters measure.

    An attribute without a rater has no level.
    """
    names = [spec.name for spec in attributes]
    annotated = []
    for prompt, response in texts:
        measured = zip(measure(response, raters, names), attributes, strict=True)
        levels = tuple(level if math.isnan(level) else float(nearest_level(level, spec)) for level, spec in measured)
        annotated.append(AnnotatedText(prompt, response, levels))
    return annotated
