"""The embedded default: a corpus, its annotations and a tokenizer; `steerlm_core.training.base_model` makes the model."""
