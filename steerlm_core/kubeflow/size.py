"""How large the Workflow of a run grows, which Argo ends when it is over its limit.

    Workflow = spec + status      spec   = 3.1 × bytes of the compiled pipeline
                                  status = 380 bytes × nodes, compressed as Argo does from the limit on

Both factors were measured on a run of two shards (KFP 2.17.0, Argo 4.0.5) whose steps still carried their source; a
node without it is smaller. Argo keeps a node for everything, and one for each attempt at it, as KFP has it try errors
again:

    a step                            6     its driver, the step, the pod in it
    a graph                           4     its driver, itself, and what is inside
    a condition that does not hold    3     its driver, and that it was skipped
    a loop                            5     itself, its driver, the group of its iterations
    an iteration of a loop            6     itself, its driver, its graph, and what is inside
    a run                             6     the Workflow, the root's driver, the root
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steerlm_core.errors import ConfigError
from steerlm_core.kubeflow.chain import number_of

_SPEC, _NODE = 3.1, 380
_STEP, _GRAPH, _SKIPPED, _LOOP, _TURN, _RUN = 6, 4, 3, 5, 6, 6


@dataclass(frozen=True)
class Workflow:
    """A run of a compiled pipeline.

    Attributes:
        pipeline: The pipeline.
        length: Bytes of its file.
        limit: Bytes that Argo lets a Workflow have.
    """

    pipeline: Mapping[str, Any]
    length: int
    limit: int

    def nodes(self, iterations: int, shards: int) -> int:
        """Return the nodes of a finished run.

        Args:
            iterations: Iterations that are at work; those left of the chain are skipped.
            shards: Shards of sampling and scoring.
        """
        return _RUN + self._graph(self.pipeline["root"], iterations, shards, holds=True)

    def size(self, iterations: int, shards: int) -> int:
        """Return the bytes of a finished run's Workflow."""
        return round(_SPEC * self.length) + _NODE * self.nodes(iterations, shards)

    def check(self, iterations: int, shards: int) -> None:
        """Refuse a run that could not finish.

        Raises:
            ConfigError: It could not; with what would.
        """
        if (size := self.size(iterations, shards)) <= self.limit:
            return
        raise ConfigError(
            f"max_iterations {iterations} with shards {shards}: the run could not finish. Argo ends one whose Workflow "
            f"is over {self.limit:,} bytes, and this one grows to about {size:,}. {self._way_out(iterations, shards)}"
        )

    def _way_out(self, iterations: int, shards: int) -> str:
        fewer_shards = (n for n in range(shards - 1, 0, -1) if self.size(iterations, n) <= self.limit)
        fewer_iterations = (n for n in range(iterations - 1, 0, -1) if self.size(n, shards) <= self.limit)
        found = (("shards", next(fewer_shards, None)), ("max_iterations", next(fewer_iterations, None)))
        fits = " or ".join(f"{name} {number}" for name, number in found if number)
        raised = "a higher MAX_WORKFLOW_SIZE of Argo's workflow-controller, named in steps.max_workflow_size too"
        return f"What fits: {fits}, or {raised}." if fits else f"What helps: {raised}."

    def _graph(self, component: Mapping[str, Any], iterations: int, shards: int, holds: bool) -> int:
        return sum(
            self._task(
                task, iterations, shards, holds if (number := number_of(name, task)) is None else number < iterations
            )
            for name, task in component["dag"]["tasks"].items()
        )

    def _task(self, task: Mapping[str, Any], iterations: int, shards: int, holds: bool) -> int:
        component = self.pipeline["components"][task["componentRef"]["name"]]
        if "dag" not in component:
            return _STEP
        if "triggerPolicy" in task and not holds:
            return _SKIPPED
        inside = self._graph(component, iterations, shards, holds)
        return _LOOP + shards * (_TURN + inside) if "parameterIterator" in task else _GRAPH + inside
