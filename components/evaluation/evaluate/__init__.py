from components.evaluation.evaluate.component import evaluate as evaluate
