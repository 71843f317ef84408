"""Training: SteerLM v2 under every engine, and the supervised training before the loop."""
