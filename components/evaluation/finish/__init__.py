from components.evaluation.finish.component import finish as finish
