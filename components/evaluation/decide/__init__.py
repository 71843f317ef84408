from components.evaluation.decide.component import decide as decide
