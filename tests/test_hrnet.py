"HRNet at the edges of what it takes."

import torch
from logocap.hrnet import HRNet


def test_half_precision():
    with torch.no_grad():
        features = HRNet(8).eval().to(torch.bfloat16)(torch.randn(1, 3, 64, 96).bfloat16())
    assert features.dtype == torch.bfloat16
    assert features.shape == (1, 120, 16, 24)
