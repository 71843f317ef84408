"""Sampling candidates."""
