"Expansion maps at the ends: nobody, half precision, the border, gradients."

import pytest
import torch
from logocap.center_offset import example_fields, upsample
from logocap.keypoints import example_people, people_tensors
from logocap.kem import global_kem, global_mesh, local_kem, local_mesh


@pytest.fixture
def people():
    return people_tensors(example_people()['annotations'])[0]


@pytest.fixture
def poses(people):
    torch.manual_seed(0)
    return people[None, ..., :2] + 5 * torch.randn(1, 3, 17, 2)


@pytest.fixture
def heatmaps(people):
    return upsample(example_fields(people, (256, 320))[0][None], (256, 320))


def test_local_maps_in_bfloat16():
    mesh = local_mesh(torch.rand(2, 30, 17, 2) * 99 - 20)
    kem = local_kem(torch.randn(2, 8, 16, 16).bfloat16(), mesh)
    assert kem.shape == (2, 30, 136, 11, 11) and kem.dtype == torch.bfloat16


def test_nobody(heatmaps, poses):
    nobody = torch.zeros(1, 0, 17, 2)
    kem = local_kem(torch.randn(1, 8, 16, 16), local_mesh(nobody))
    assert kem.shape == (1, 0, 136, 11, 11)
    assert global_kem(heatmaps, global_mesh(poses)[:, :0]).shape == (1, 0, 17, 97, 97)


def test_gradients_reach_the_embedding(poses):
    embedding = torch.randn(1, 2, 64, 80, requires_grad=True)
    kem = local_kem(embedding, local_mesh(poses))
    kem.sum().backward()  # each sample hands out weights that sum to 1
    assert abs(embedding.grad.sum().item() - kem.numel()) < 1


def test_gradients_reach_the_heatmaps(heatmaps, poses):
    heatmaps.requires_grad_()
    global_kem(heatmaps, global_mesh(poses)).sum().backward()
    assert (heatmaps.grad[0, :17].abs().sum((1, 2)) > 0).all()
    assert not heatmaps.grad[0, 17].any()  # the center's map takes no part


def test_the_border_repeats(poses):
    "A map that hangs over the lower edge, and maps of keypoints far outside."
    slope = torch.arange(256.0)[:, None].expand(1, 18, 256, 320) + 7
    x, y = poses.round()[0, 0, 15].long().tolist()  # an ankle
    rows = (torch.arange(-48, 49) + y).clamp(0, 255)
    kem = global_kem(slope, global_mesh(poses.round()))[0, 0, 15]
    assert torch.allclose(kem, slope[0, 15][rows][:, x - 48 : x + 49], atol=1e-3)
    outside = global_kem(slope, global_mesh(torch.full((1, 30, 17, 2), -500.0)))
    assert torch.allclose(outside, torch.tensor(7.0), atol=1e-5)
