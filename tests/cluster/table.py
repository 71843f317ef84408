"""The table of failures: class, message, and seconds until it was noticed, as measured."""

from __future__ import annotations

from tests.cluster.kit import ROOT

_HEAD = "| what happens | class | what the launcher says | noticed after | then |\n|---|---|---|---|---|\n"


class Table:
    """Rows, in the order in which they were measured."""

    def __init__(self) -> None:
        """Nothing has been measured."""
        self._rows: list[str] = []

    def row(self, what: str, kind: str, message: str, seconds: float | None, then: str) -> None:
        """Note one failure.

        Args:
            what: What was done.
            kind: The class.
            message: The launcher's line.
            seconds: Until it was noticed.
            then: What followed.
        """
        after = "" if seconds is None else f"{seconds:.0f} s"
        self._rows.append(f"| {what} | `{kind}` | {message} | {after} | {then} |\n")

    def write(self) -> None:
        """Write what was measured."""
        path = ROOT / "build" / "cluster-failures.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(_HEAD + "".join(self._rows))
