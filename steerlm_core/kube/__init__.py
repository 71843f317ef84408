"""PyTorchJobs: what is asked of the cluster, what runs in its pods, and who watches them."""
