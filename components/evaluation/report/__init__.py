from components.evaluation.report.component import report as report
