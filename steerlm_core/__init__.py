"""SteerLM on Kubeflow: attribute-steered alignment, again and again, on your own cluster."""

__version__ = "0.1.0"
