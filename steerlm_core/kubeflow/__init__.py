"""Kubeflow Pipelines around the library: the packaged pipeline and its local runner. The only part that imports kfp."""
