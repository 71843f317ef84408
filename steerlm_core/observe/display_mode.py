"""Which display a person gets: the one asked for, or the one that fits where the output goes."""

from __future__ import annotations

import os
import sys
from typing import Literal, TextIO

from steerlm_core.observe.display import Display, PlainDisplay, RichDisplay
from steerlm_core.observe.log_display import LogDisplay

Mode = Literal["auto", "rich", "plain", "log", "quiet"]


def make_display(mode: Mode) -> Display:
    """Return the display of a mode, on standard error.

    `auto` is rich on a terminal, structured lines in a pod, and plain ones elsewhere, in notebooks, CI and on dumb
    terminals; `quiet` shows warnings only.
    """
    if mode == "auto":
        mode = "rich" if _is_live(sys.stderr) else "log" if "KUBERNETES_SERVICE_HOST" in os.environ else "plain"
    kinds: dict[Mode, type[Display]] = {
        "rich": RichDisplay, "plain": PlainDisplay, "log": LogDisplay, "quiet": Display
    }  # fmt: skip
    return kinds[mode](sys.stderr)


def _is_live(stream: TextIO) -> bool:
    return stream.isatty() and "CI" not in os.environ and os.environ.get("TERM", "dumb") != "dumb"
