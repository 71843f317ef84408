"""Runs that follow each other under one base root: begin ─► a run ─► finish ─► what is promoted.

<base root>/runs/<job id>/…   the runs
running.json      who trains now
finished.json     what the last finished run was trained on
promoted.json     the model in use, and those before it
"""
