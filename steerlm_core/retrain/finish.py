"""finish: a run under a base root has stopped. Is its model better, and is it to be used?

A model is promoted when its run's decision is good, and when on the same held-out pairs and fresh
candidates its distance is no larger, and its steering error not surely larger, than those of the
promoted model that the run started from.
"""

from __future__ import annotations

from typing import Any

from steerlm_core import layout
from steerlm_core.errors import RunStateError
from steerlm_core.retrain import running
from steerlm_core.retrain.promotion import ChangedMeanwhileError, OvertakenError, promote
from steerlm_core.run import Run
from steerlm_core.store import absolute_root
from steerlm_core.store.run_store import RunStore
from steerlm_core.store.sealed import seal

GOOD = ("converged", "plateau", "max_iterations")


def finish(run: Run, outcome: dict[str, Any], comparison: dict[str, Any] | None) -> tuple[bool, str]:
    """Promote the run's model or not, note what was trained on, and give the base root back.

    Args:
        run: The run, which was begun under a base root.
        outcome: How it ended.
        comparison: The best policy against the promoted one; None where nothing was promoted before.

    Returns:
        Whether the model is promoted, and why or why not.

    Raises:
        RunStateError: Another run has the base root, so this one is not the newest; nothing is changed.
    """
    base, origin = run.base, run.origin
    assert base is not None
    _check_turn(base, run.root)
    good, words = judge(outcome, comparison)
    if good:
        try:
            _promote(base, run.store, words, origin["started_from"])
        except OvertakenError as error:
            good, words = False, str(error)
    noted = {"root": absolute_root(run.root), "material": origin["material"], "promoted": good, "words": words}
    base.put(layout.FINISHED, seal(noted))
    running.release_of_run(base, run.root)
    return good, words


def _check_turn(base: RunStore, root: str) -> None:
    """Refuse to end a run that has not the base root; the one that ended last may end again."""
    for key in (layout.RUNNING, layout.FINISHED):
        found = base.document_versioned(key)
        if found is not None and running.is_run(base, root, found[0]["root"]):
            return
    raise RunStateError(
        f"{base.url(layout.RUNNING)}: {running.holder(base)} has this base root, and not {root}, which is neither "
        f"promoted nor noted as finished. If its model is to be used: steerlm promote {root}"
    )


def _promote(base: RunStore, run: RunStore, words: str, instead_of: str | None) -> None:
    """Promote the run's model, once more where another change was faster: it may have left in use what was."""
    try:
        promote(base, run, words, instead_of)
    except ChangedMeanwhileError:
        promote(base, run, words, instead_of)


def judge(outcome: dict[str, Any], comparison: dict[str, Any] | None) -> tuple[bool, str]:
    """Return whether a model is good enough to be promoted, and the sentence that says why."""
    if outcome["best_iteration"] is None or outcome["kind"] not in GOOD:
        return False, f"Not promoted: the run ended {outcome['kind']}."
    if comparison is None:
        return True, f"Promoted: the run ended {outcome['kind']}, and no model was in use before."
    distance, error = comparison["distance"], comparison["steering_error"]
    found = f"distance {_change(distance)} nats, steering error {_change(error)} levels, against the promoted model"
    if distance["mean"] > 0:
        return False, f"Not promoted: {found}: its fresh distance is larger."
    if error["low"] > 0:
        return False, f"Not promoted: {found}: its steering error is surely larger."
    return True, f"Promoted: {found}."


def _change(rise: dict[str, float]) -> str:
    return f"{rise['mean']:+.3f} [{rise['low']:+.3f}, {rise['high']:+.3f}]"
