"""Launching and watching: a job is created once, watched, told of, tried again, and never lost."""
