"""What the API server says, read."""

from __future__ import annotations

import pytest

from steerlm_core.kube.job.state import never_fits_quota


@pytest.mark.parametrize(
    ("amounts", "never"),
    [
        ("requested: cpu=4, used: cpu=0, limited: cpu=2", True),
        ("requested: cpu=2, used: cpu=1, limited: cpu=2", False),
        ("requested: cpu=500m,memory=3Gi, used: cpu=0,memory=0, limited: cpu=1,memory=2Gi", True),
        ("requested: nvidia.com/gpu=8, used: nvidia.com/gpu=0, limited: nvidia.com/gpu=4", True),
        ("must specify limits.cpu", False),
    ],
)  # fmt: skip
def test_a_request_beyond_a_quota_never_fits(amounts: str, never: bool) -> None:
    assert never_fits_quota(f"exceeded quota: q, {amounts}", 1) is never
