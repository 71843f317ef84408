"""The API server: client, where things stand in it, list and watch, and the pod that this process runs in."""
