"""A training job: its manifest as a function of what is trained and of the platform, and what its state means."""
