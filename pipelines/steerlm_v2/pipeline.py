"""The SteerLM v2 loop as a Kubeflow pipeline: begin, prepare, a chain of iterations, confirm, finish, report.

KFP v2 has no while, so the chain is as long as the pipeline was compiled for. Each iteration is a nested pipeline that
asks `gate` first; once the run has stopped, the iterations that remain are a gate and nothing else. A failed step ends
the run at once, and Retry goes on at that step. Where `begin` finds nothing new, nothing else runs.

What Kubeflow iterates over arrives inside as text, and the list itself does not arrive: so a shard is text that says
all of it ("0/2"), and no step inside a loop is given the list.

    python -m pipelines.steerlm_v2.pipeline     # regenerates pipeline.yaml
"""

from pathlib import Path

from kfp import compiler, dsl
from kfp.dsl.base_component import BaseComponent

from components.data_processing.begin import begin
from components.data_processing.generate import generate
from components.data_processing.prepare import prepare
from components.data_processing.score import score
from components.data_processing.weigh import weigh
from components.evaluation.confirm import confirm
from components.evaluation.decide import decide
from components.evaluation.evaluate import evaluate
from components.evaluation.finish import finish
from components.evaluation.gate import gate
from components.evaluation.report import report
from components.training.train import train
from pipelines.steerlm_v2.compact import make_compact

ITERATIONS = 8
COMPILED = Path(__file__).with_name("pipeline.yaml")


def _step(component: BaseComponent, *before: dsl.PipelineTask, **arguments: object) -> dsl.PipelineTask:
    """Add one step after others, never cached: its result lies in the run root, which KFP's cache does not see."""
    task = component(**arguments)
    task.set_caching_options(False)
    return task.after(*before)


@dsl.pipeline(name="steerlm-v2-iteration")
def iteration(root: str, index: int, max_iterations: int, shards: list):
    """Run one iteration of the loop, unless the run has stopped.

    Args:
        root: Where the run lives: a folder, or an s3:// address.
        index: Number of the iteration, from 0.
        max_iterations: Most iterations of the run.
        shards: The shards that sampling and scoring are split over, as text.
    """
    here = {"root": root, "iteration": index}
    answer = _step(gate, max_iterations=max_iterations, **here)
    with dsl.If(answer.output == "run", name="run"):
        with dsl.ParallelFor(shards, name="sampling") as shard:
            candidates = _step(generate, shard=shard, **here)
        with dsl.ParallelFor(shards, name="scoring") as shard:
            scores = _step(score, candidates, shard=shard, **here)
        groups = _step(weigh, scores, **here)
        policy = _step(train, groups, **here)
        distance = _step(evaluate, policy, **here)
        _step(decide, distance, **here)


def steerlm_v2(iterations: int = ITERATIONS) -> BaseComponent:
    """Return the pipeline with room for a number of iterations."""

    @dsl.pipeline(name="steerlm-v2", display_name="Iterative SteerLM v2")
    def loop(
        root: str = "",
        base_root: str = "",
        config: dict = {},  # noqa: B006  (KFP copies it into the pipeline; nobody changes it)
        config_uri: str = "",
        max_iterations: int = 0,
        shards: int = 1,
    ):
        """Train an attribute-steered model until its distance to the target has plateaued.

        Args:
            root: Where this run lives: an s3:// address, or a folder on a volume that every step mounts. A root that
                holds an unfinished run of the same configuration is continued. Give this or base_root.
            base_root: Where runs follow each other, for retraining: a new run starts from the promoted model, and only
                if there is something new; a better model is promoted.
            config: The run's configuration, the same mapping as in the YAML file of the command line. May be left out
                for a root that exists, and where config_uri is given.
            config_uri: A YAML file with the configuration, such as s3://bucket/config.yaml.
            max_iterations: Stop after so many iterations, if the distance has not plateaued before; 0: as many as the
                run's configuration allows.
            shards: Split sampling and scoring over so many pods.
        """
        run = _step(
            begin, job=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            root=root, base_root=base_root, config=config, config_uri=config_uri,
            max_iterations=max_iterations, room=iterations,
        )  # fmt: skip
        with dsl.If(run.output != "", name="something-new"):
            prepared = _step(prepare, root=run.output, shards=shards)
            here = {"root": run.output, "max_iterations": max_iterations}
            last = prepared
            for index in range(iterations):
                last = _step(iteration, last, index=index, shards=prepared.output, **here)
                last.set_display_name(f"iteration-{index}")
            confirmation = _step(confirm, last, root=run.output)
            finished = _step(finish, confirmation, **here)
            _step(report, finished, root=run.output)

    return loop


def compile_to(path: Path, iterations: int = ITERATIONS) -> None:
    """Compile the pipeline with room for a number of iterations."""
    compiler.Compiler().compile(steerlm_v2(iterations), str(path))
    make_compact(path)


if __name__ == "__main__":
    compile_to(COMPILED)
