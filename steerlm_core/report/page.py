"""What a report's page is made of; the template knows how each piece looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup


@dataclass(frozen=True)
class Table:
    """A table whose first columns, as many as `words`, hold words; the others hold numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1


@dataclass(frozen=True)
class Figures:
    """Figures side by side, with what there is to say of them."""

    svgs: Sequence[Markup]
    caption: str = ""
    title: str = ""


@dataclass(frozen=True)
class Samples:
    """Responses of several policies to the same prompts, side by side."""

    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Text:
    """Text in a fixed width, as it is."""

    text: str


@dataclass(frozen=True)
class Notes:
    """A list of sentences; `alarming` ones are marked."""

    lines: Sequence[tuple[str, str]]
    alarming: bool = False


Block = Table | Figures | Samples | Text | Notes | str


@dataclass(frozen=True)
class Section:
    """One section: a heading, an explanation, and what it shows."""

    name: str
    title: str
    lead: str
    blocks: Sequence[Block] = field(default_factory=tuple)
