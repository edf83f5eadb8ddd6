"Pieces of the fast network at their limits, against the pieces that they stand for."

import pytest
import torch
from torch import nn
from logocap.adaptation import reweigh
from logocap.center_offset import upsample
from logocap.cmp import MessagePassing
from logocap.fast import FastMessagePassing, WindowConv, fused, heatmap_windows
from logocap.kem import global_kem, global_mesh


def near(a, b, share=2e-5):
    return a.shape == b.shape and (a - b).abs().max() < share * b.abs().max()


@pytest.mark.parametrize('h, w', ((24, 40), (64, 48), (4, 6)))
@pytest.mark.parametrize('side', (97, 33, 1))
def test_windows_of_heatmaps(h, w, side):
    "Around keypoints inside, at the border and far outside; also of maps smaller than a window."
    torch.manual_seed(0)
    heatmaps, size = torch.rand(2, 18, h, w), (4 * h, 4 * w)
    poses = torch.rand(2, 3, 17, 2) * torch.tensor([4.0 * w, 4.0 * h]) * 1.6 - 20
    far = [[-500.0, -500.0], [1e9, 7.25], [0.0, 0.0], [4 * w - 1.0, 4 * h - 1.0]]
    poses[0, 0, :4] = torch.tensor(far)
    kem = global_kem(upsample(heatmaps, size), global_mesh(poses, side))
    assert (heatmap_windows(heatmaps, poses, size, side) - kem).abs().max() < 2e-4
    if side > 1:
        ours = heatmap_windows(heatmaps, poses, size, side, True)
        assert (ours - reweigh(kem)).abs().max() < 2e-4


def test_no_place_no_value():
    nowhere = torch.full((2, 3, 17, 2), torch.nan)
    assert heatmap_windows(torch.rand(2, 18, 24, 40), nowhere, (96, 160)).isnan().all()


@pytest.mark.parametrize('size', (1, 5, 7, 11, 13))
def test_winograd_in_windows_of_any_size(size):
    torch.manual_seed(0)
    conv = nn.Conv2d(20, 12, 3, padding=1)
    x = torch.randn(3, 20, size, size)
    with torch.no_grad():
        assert near(WindowConv(fused(conv, relu=False), size)(x), conv(x), 1e-4)


@pytest.mark.parametrize('size, k', ((11, 5), (5, 5), (11, 0)))
def test_message_passing(size, k):
    "Other windows, and without attentive normalization."
    torch.manual_seed(0)
    cmp = MessagePassing(8, (48, 32, 16), k)
    for m in cmp.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.5, 2)
    windows = torch.randn(3, 17 * 8, size, size)
    with torch.inference_mode():
        expected = cmp.eval()(windows)
        assert near(FastMessagePassing(cmp, size=size)(windows), expected)
