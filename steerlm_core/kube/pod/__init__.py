"""What runs in the pods of a PyTorchJob: one process a pod, which outlives torchrun and says how it ended.

    inputs ─► torchrun, its ranks ─► model, manifest (node 0) ─► outcome ─► exit code
              ▲                │
    SIGTERM, no heartbeat      └─► progress, checkpoints in the run root

The pod of node 0 exits with 0 only once `model/manifest.json` is committed, so the job succeeds when the
iteration has its model and at no other time.
"""
