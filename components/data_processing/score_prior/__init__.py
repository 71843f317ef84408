from components.data_processing.score_prior.component import score_prior as score_prior
