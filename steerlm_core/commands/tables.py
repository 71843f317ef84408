"""Tables on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from steerlm_core.observe.text import printable

# Where standard output is a file, nothing is folded away to fit a screen that is not there.
_WIDTH_OF_A_FILE = 160


def console() -> Console:
    """Return a console on standard output, as it is now."""
    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print a table; cells are shown as they are, control characters spelt out."""
    table = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console().print(table)


def print_text(text: str, style: str = "") -> None:
    """Print a paragraph; control characters are spelt out."""
    console().print(Text(printable(text), style=style), soft_wrap=True)
