"""The train backend: a job is created or adopted once, watched, announced, tried again, and never lost."""
