"""One job: what is asked of the cluster (spec, pod template, patch, permissions), its state, and what that means."""
