"""What tests measure for the documentation: the failures as they look, and what a step costs."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tests.cluster.kit import ROOT

_FAILURES = "| what happens | class | what the launcher says | noticed after | then |\n|---|---|---|---|---|\n"
_LONGEST = 330
_COSTS = "| part of a step | seconds |\n|---|---|\n"


def _short(message: str) -> str:
    """A message without what differs from run to run, and without its class, which stands beside it."""
    text = re.sub(r"^error: |^[\d-]+ [\d:,]+ ", "", message)
    text = re.sub(r"train-[0-9a-f]{10}-\d", "JOB", text)
    text = re.sub(r"(namespaces/)[\w-]+|(s3://test/)[\w-]+|(http://)[\d.:]+", r"\1\2\3…", text)
    text = re.sub(r"^(job JOB: )?[a-z_]+: ", "", text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rsplit(' ', 1)[0]} …"


class Table:
    """Rows, in the order in which they were measured."""

    def __init__(self) -> None:
        """Nothing has been measured."""
        self._failures: list[str] = []
        self._costs: list[str] = []

    def row(self, what: str, kind: str, message: str, seconds: float | None, then: str) -> None:
        """Note one failure.

        Args:
            what: What was done.
            kind: The class; empty where the attempt did not end.
            message: The launcher's line.
            seconds: Until it was noticed; None where there is nothing to notice.
            then: What followed.
        """
        after = "" if seconds is None else f"{seconds:.0f} s"
        self._failures.append(f"| {what} | {f'`{kind}`' if kind else ''} | {_short(message)} | {after} | {then} |\n")

    def cost(self, seconds: Mapping[str, float]) -> None:
        """Note where the seconds of a step went."""
        self._costs += [f"| {part} | {value:.1f} |\n" for part, value in seconds.items()]

    def write(self) -> None:
        """Write what was measured to build/cluster-tables.md."""
        path = ROOT / "build" / "cluster-tables.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{_FAILURES}{''.join(self._failures)}\n{_COSTS}{''.join(self._costs)}")
