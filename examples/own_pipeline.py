"""A pipeline of your own from single components: weighed groups of one iteration, and a step that looks at them.

    python -m examples.own_pipeline          # from a checkout; writes own_pipeline.yaml, ready to be uploaded

Every component of the loop can be used like this: each reads its inputs from the run root and leaves its output
there, so what one pipeline has done another may go on with, and `steerlm resume` too.
"""

from kfp import compiler, dsl

from components.data_processing.begin import begin
from components.data_processing.generate import generate
from components.data_processing.prepare import prepare
from components.data_processing.score import score
from components.data_processing.weigh import weigh


@dsl.component(base_image="localhost/steerlm:test", install_kfp_package=False)
def best_weights(root: str) -> str:
    """Show the group whose weight lies most on one candidate.

    Args:
        root: Where the run lives.

    Returns:
        Its id, and the share of its heaviest candidate.
    """
    import math

    from steerlm_core import layout
    from steerlm_core.report.run_view import RunView
    from steerlm_core.run import open_run

    view = RunView(open_run(root))
    weighed = view.manifest(layout.stage_output(layout.iteration(0), "groups"))
    tables = [view.store.read_table(part) for part in weighed.parts]
    groups = [group for table in tables for group in table.to_pylist()]
    heaviest = max(groups, key=lambda group: max(group["log_ws"]))
    return f"group {heaviest['group_id']}: {math.exp(max(heaviest['log_ws'])):.0%}"


@dsl.pipeline(name="weights-of-one-iteration")
def weights(root: str, config: dict):
    """Sample, label, score and weigh once.

    Args:
        root: Where the run lives: a folder, or an s3:// address.
        config: The run's configuration.
    """
    run = begin(job="own", root=root, config=config).set_caching_options(False)
    before = prepare(root=run.output).set_caching_options(False)
    here = {"root": run.output, "iteration": 0}
    candidates = generate(**here).after(before).set_caching_options(False)
    scores = score(**here).after(candidates).set_caching_options(False)
    groups = weigh(**here).after(scores).set_caching_options(False)
    best_weights(root=run.output).after(groups).set_caching_options(False)


if __name__ == "__main__":
    compiler.Compiler().compile(weights, "own_pipeline.yaml")
