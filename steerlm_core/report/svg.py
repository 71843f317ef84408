"""Small pieces of inline SVG: elements, scales, axes. Colours are classes of the page's style, and follow its theme."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

Anchor = Literal["start", "middle", "end"]

_WIDE = 500.0  # what would be too small to read on a phone, where it scrolls instead


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """Return an element; children that are not markup and all values are escaped; `class_` and `text_anchor` work."""
    listed = "".join(f' {key.strip("_").replace("_", "-")}="{escape(_short(v))}"' for key, v in attributes.items())
    inner = Markup("").join(children)
    return Markup(f"<{name}{listed}>{inner}</{name}>" if inner else f"<{name}{listed}/>")


def text(x: float, y: float, content: object, class_: str = "tick", anchor: Anchor = "middle") -> Markup:
    """Return a line of text."""
    return tag("text", escape(str(content)), x=x, y=y, class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def polyline(points: Iterable[tuple[float, float]], class_: str) -> Markup:
    """Return a line through points."""
    return tag("polyline", points=" ".join(f"{_short(x)},{_short(y)}" for x, y in points), class_=class_)


def rect(x: float, y: float, width: float, height: float, class_: str, **more: object) -> Markup:
    """Return a rectangle."""
    return tag("rect", x=x, y=y, width=width, height=height, class_=class_, **more)


def picture(width: float, height: float, description: str, parts: Iterable[str]) -> Markup:
    """Return a whole figure; the description is for those who cannot see it."""
    size = {"viewBox": f"0 0 {_short(width)} {_short(height)}", "width": width, "height": height}
    return tag("svg", *parts, role="img", aria_label=description, class_="wide" if width > _WIDE else "small", **size)


def together(*figures: Markup) -> Markup:
    """Return figures that stay side by side while there is room for two."""
    return Markup('<div class="together">{}</div>').format(Markup("").join(figures))


@dataclass(frozen=True)
class Scale:
    """Maps values to places: linear, or logarithmic where `log` is set."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a value; what lies outside is held at the ends."""
        inverse: Callable[[float], float] = math.log10 if self.log else float
        low, high, at = inverse(self.low), inverse(self.high), inverse(max(value, self.low) if self.log else value)
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + (self.end - self.start) * min(max(share, 0.0), 1.0)

    def ticks(self) -> list[float]:
        """Return some four to eight round values."""
        if self.log:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            return [10.0**power for power in powers]
        step = _round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        return [step * n for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """Return a tick's label."""
    if value and (abs(value) < 1e-3 or abs(value) >= 1e5):
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.6g}"


def value_axis(scale: Scale, left: float, right: float) -> list[Markup]:
    """Return grid lines and labels of a vertical axis at the left of a plot."""
    lines = [line(left, scale(value), right, scale(value), "grid") for value in scale.ticks()]
    labels = [text(left - 8, scale(value) + 4, number(value), anchor="end") for value in scale.ticks()]
    return lines + labels


def bottom_axis(scale: Scale, top: float, bottom: float) -> list[Markup]:
    """Return grid lines and labels of a horizontal axis below a plot."""
    lines = [line(scale(value), top, scale(value), bottom, "grid") for value in scale.ticks()]
    return lines + [text(scale(value), bottom + 18, number(value)) for value in scale.ticks()]


def legend(entries: Sequence[tuple[str, str]], left: float, y: float, right: float) -> tuple[list[Markup], float]:
    """Return a legend in rows as wide as there is room, and the place of its last row: (class of the mark, words)."""
    parts: list[Markup] = []
    x = left
    for class_, words in entries:
        width = 34 + 7.0 * len(words)
        if x > left and x + width > right + 20:
            x, y = left, y + 18
        parts += [tag("circle", cx=x + 5, cy=y - 4, r=5, class_=class_), text(x + 16, y, words, "label", "start")]
        x += width
    return parts, y


def _round_step(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw)) if raw > 0 else 1.0
    return next(step * power for step in (1, 2, 5, 10) if step * power >= raw * 0.999) if raw > 0 else 1.0


def _short(value: object) -> object:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value
