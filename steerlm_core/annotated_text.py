"""Annotated texts: what the attribute model and the SteerLM v1 bootstrap learn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from steerlm_core.attributes import AttributeSpec, Target
from steerlm_core.errors import DataError

# How NeMo's files mark an attribute that nobody has judged.
NEMO_MISSING = -100.0


@dataclass(frozen=True)
class AnnotatedText:
    """A response to a prompt, with a level for each attribute of the run, in its order.

    Attributes:
        prompt: The user's text.
        response: The answer.
        levels: NaN, or NeMo's -100, where an attribute has no level.
        complete: Whether the response came to its end; one that was cut teaches no end token.
    """

    prompt: str
    response: str
    levels: tuple[float, ...]
    complete: bool = True

    def target(self, attributes: Sequence[AttributeSpec]) -> Target:
        """Return the levels that are there, as integers: the label that SteerLM v1 reads."""
        pairs = zip(attributes, self.levels, strict=True)
        return {spec.name: nearest_level(level, spec) for spec, level in pairs if not is_missing(level)}


def is_missing(level: float) -> bool:
    """Whether a level stands for 'not judged'."""
    return math.isnan(level) or level == NEMO_MISSING


def nearest_level(level: float, attribute: AttributeSpec) -> int:
    """Round a real level half away from zero, and clamp it to the attribute's range."""
    rounded = math.copysign(math.floor(abs(level) + 0.5), level)
    return int(min(max(rounded, attribute.low), attribute.high))


def check_annotated(texts: Sequence[AnnotatedText], attributes: Sequence[AttributeSpec], where: str) -> None:
    """Check that every text has at least one level, and one place for each attribute.

    Raises:
        DataError: A text has no level at all, or too many or few.
    """
    for number, text in enumerate(texts):
        if len(text.levels) != len(attributes):
            raise DataError(f"{where}: text {number} has {len(text.levels)} levels for {len(attributes)} attributes.")
        if all(is_missing(level) for level in text.levels):
            names = ", ".join(spec.name for spec in attributes)
            raise DataError(
                f"{where}: text {number} ({text.response[:60]!r}…) has no level for any of: {names}. "
                "Leave it out, or give it at least one."
            )
