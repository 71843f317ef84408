"""`steerlm verify`, `gc` and `copy`: looking after what a run has stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from steerlm_core import layout
from steerlm_core.commands.run import Root

if TYPE_CHECKING:
    from steerlm_core.store.run_store import RunStore

_BROKEN = 1

KeepModels = Annotated[
    int | None, typer.Option(min=0, help="Newest iterations that keep their model; the best and the last always do.")
]
KeepCandidates = Annotated[
    int | None, typer.Option(min=0, help="Newest iterations that keep candidates, labels, prior scores and groups.")
]


def verify(root: Root) -> None:
    """Read every byte of a run and check it against its manifests; exit code 1 where something is wrong."""
    from steerlm_core.commands.tables import print_table, print_text
    from steerlm_core.observe.text import size
    from steerlm_core.store import open_store
    from steerlm_core.store.verify import verify as verify_run

    contents, problems = verify_run(open_store(root), _progress)
    if problems:
        print_table(("object", "what is wrong"), sorted(problems.items()))
        print_text(f"{len(problems)} of the objects of {root} cannot be used.", style="bold red")
        raise typer.Exit(_BROKEN)
    parts = list(contents.parts())
    gone = f"; {len(contents.removed)} output(s) removed by retention" if contents.removed else ""
    print_text(
        f"{contents.run_id}: {len(contents.documents)} documents and {len(parts)} parts, "
        f"{size(sum(part.size for part in parts))}, all as they were written{gone}."
    )


def gc(
    root: Root,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; without this it is only listed.")] = False,
    keep_models: KeepModels = None,
    keep_candidates: KeepCandidates = None,
    keep_runs: Annotated[
        int | None, typer.Option(min=0, help="Of a base root: newest runs that stay; those in use always do.")
    ] = None,
) -> None:
    """Show what no commit of a run refers to, and what is too old to be kept; remove it with --delete."""
    from steerlm_core.commands.tables import print_table, print_text
    from steerlm_core.errors import ConfigError, RunStateError
    from steerlm_core.observe.text import size
    from steerlm_core.retrain.promotion import iterations_in_use
    from steerlm_core.retrain.retention import is_base_root
    from steerlm_core.run import base_of
    from steerlm_core.store import open_store
    from steerlm_core.store.contents import read_contents
    from steerlm_core.store.gc import find_rubbish, remove

    store = open_store(root)
    old_go = keep_models is not None or keep_candidates is not None
    if is_base_root(store):
        if keep_runs is None or old_go:
            raise ConfigError(f"{root}: is a base root. Say only how many of its newest runs stay: --keep-runs N")
        return _gc_runs(store, keep_runs, delete)
    if keep_runs is not None:
        raise ConfigError(f"{root}: is no base root, so there are no runs to keep: --keep-runs {keep_runs}")
    contents = read_contents(store)
    for key, what in contents.problems.items():
        raise RunStateError(f"{store.url(key)}: {what}. Nothing is removed from a damaged run; see `steerlm verify`.")
    in_use = iterations_in_use(base_of(contents.documents[layout.RUN]), contents) if old_go else ()
    rubbish = find_rubbish(store, contents, keep_models, keep_candidates, in_use)
    rows = [(found.key, size(found.size), _why(found.key)) for found in rubbish.unreferenced + rubbish.unfinished]
    rows += [(found.key, size(found.size), "old") for some in rubbish.retired.values() for found in some]
    if rows:
        print_table(("object", "size", "why"), sorted(rows))
    for who in rubbish.at_work:
        print_text(f"At work: {who}; what it has not finished is left alone.")
    found = remove(store, rubbish) if delete else rubbish.everything()
    total = size(sum(each.size for each in found))
    what_then = " removed" if delete else "; remove them with --delete" if rows else ""
    print_text(f"{len(found)} object(s), {total}{what_then}.")


def _gc_runs(base: RunStore, keep: int, delete: bool) -> None:
    """Show or remove old runs under a base root."""
    from steerlm_core.commands.tables import print_table, print_text
    from steerlm_core.observe.text import size
    from steerlm_core.retrain.retention import objects_of, old_runs

    found = [(run, *objects_of(run)) for run in old_runs(base, keep)]
    if found:
        print_table(("run", "size"), [(run.root, size(count)) for run, _, count in found])
    for run, keys, _ in found if delete else ():
        run.delete(keys[:-1])
        run.delete(keys[-1:])  # run.json: what is half removed is still a run, and goes next time
    what_then = " removed" if delete else "; remove them with --delete" if found else ""
    print_text(f"{len(found)} run(s), {size(sum(count for *_, count in found))}{what_then}.")


def _why(key: str) -> str:
    return "given back" if key.startswith(layout.LEASES) else "unreferenced"


def copy(
    root: Root,
    target: Annotated[str, typer.Argument(help="A new root: a directory, or s3://BUCKET/PREFIX.", show_default=False)],
) -> None:
    """Copy a run to another store, every byte verified on both sides; an interrupted copy goes on when repeated."""
    from steerlm_core.commands.tables import print_text
    from steerlm_core.store import open_store
    from steerlm_core.store.copy import copy_run
    from steerlm_core.store.probe import probe

    there = open_store(target)
    probe(there)
    contents = copy_run(open_store(root), there, _progress)
    print_text(f"{contents.run_id} is in {target} now, {len(contents.documents)} documents and all their parts.")


def _progress(done: int, total: int, unit: str) -> None:
    """Say on standard error how far it is, where somebody looks."""
    import sys

    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{done}/{total} {unit}", end=end, file=sys.stderr, flush=True)
