"""The embedded default: a corpus, its annotations and a tokenizer. `training.base_model` makes the model."""

EMBEDDED = "embedded:stories"
"""What a configuration calls the texts and the base model."""
