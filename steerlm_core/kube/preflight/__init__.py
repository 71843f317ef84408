"""Looked at before anything runs: rights, quotas, operator, dry runs."""
