"""Torch code around the policy, the prior and the attribute model: loading, packing, scoring, sampling."""
