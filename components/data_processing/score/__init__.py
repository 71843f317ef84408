from components.data_processing.score.component import score as score
