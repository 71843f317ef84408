from components.evaluation.confirm.component import confirm as confirm
