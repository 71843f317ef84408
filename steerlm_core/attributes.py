"""Attributes, targets and label strings.

An *attribute* is one axis of steering (verbosity, mood) with integer levels. A *target* names a
level for some attributes. A *label string* is how a target stands in a prompt, in NeMo's notation:
`verbosity:0,mood:4`, attributes in the order of the run, joined by commas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from steerlm_core.errors import LevelError, UnknownAttributeError, did_you_mean

Target = dict[str, int]


class AttributeSpec(BaseModel):
    """One axis along which the policy can be steered."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="Name as it stands in label strings.")
    low: int = Field(default=0, description="Lowest level.")
    high: int = Field(default=4, description="Highest level.")
    description: str = Field(default="", description="What a high level means, for people.")

    @property
    def levels(self) -> range:
        """All levels, lowest first."""
        return range(self.low, self.high + 1)


def check_target(target: Mapping[str, object], attributes: Sequence[AttributeSpec], where: str) -> Target:
    """Return `target` in the order of `attributes`.

    Args:
        target: Level by attribute name.
        attributes: The attributes of the run.
        where: Where the target was written, for the message.

    Raises:
        UnknownAttributeError: It names an attribute that the run does not define.
        LevelError: A level is no integer or out of range.
    """
    known = {spec.name: spec for spec in attributes}
    for name, level in target.items():
        if name not in known:
            raise UnknownAttributeError(
                f"{where}: unknown attribute '{name}'{did_you_mean(name, known)} This run defines: {', '.join(known)}."
            )
        spec = known[name]
        if isinstance(level, bool) or not isinstance(level, int) or level not in spec.levels:
            raise LevelError(f"{where}: {name} is {level!r}; it must be an integer from {spec.low} to {spec.high}.")
    if not target:
        raise LevelError(f"{where}: the target is empty; name at least one of: {', '.join(known)}.")
    return {name: int(str(target[name])) for name in known if name in target}


def format_label(target: Mapping[str, int]) -> str:
    """Return the label string of a target: `verbosity:0,mood:4`."""
    return ",".join(f"{name}:{level}" for name, level in target.items())


def parse_label(text: str, attributes: Sequence[AttributeSpec], where: str = "label") -> Target:
    """Parse a label string, as written by `format_label` or typed by a person.

    Raises:
        LevelError: A part is not `name:level`, or the level is out of range.
        UnknownAttributeError: An attribute is not one of the run's.
    """
    target: dict[str, object] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, separator, level = part.partition(":")
        if not separator or not level.strip().lstrip("-").isdigit():
            raise LevelError(f"{where}: '{part}' is not of the form name:level, as in 'verbosity:0,mood:4'.")
        if name.strip() in target:
            raise LevelError(f"{where}: '{name.strip()}' stands twice; name each attribute once.")
        target[name.strip()] = int(level)
    return check_target(target, attributes, where)
