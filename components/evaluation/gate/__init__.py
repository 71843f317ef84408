from components.evaluation.gate.component import gate as gate
