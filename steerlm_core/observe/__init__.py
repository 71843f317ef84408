"""Seeing a run: the event stream, and what reads it."""
