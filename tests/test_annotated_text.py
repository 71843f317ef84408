"""Texts with levels of attributes."""

import math

from steerlm_core.annotated_text import AnnotatedText, nearest_level
from steerlm_core.attributes import AttributeSpec


def test_levels_are_rounded_half_away_from_zero_and_clamped():
    spec = AttributeSpec(name="mood", low=-2, high=4)
    assert [nearest_level(x, spec) for x in (0.5, 1.5, 2.5, 2.49, -0.5, 9, -9)] == [1, 2, 3, 2, -1, 4, -2]
    text = AnnotatedText("p", "r", (math.nan, 2.5))
    assert text.target([AttributeSpec(name="verbosity"), AttributeSpec(name="mood")]) == {"mood": 3}
