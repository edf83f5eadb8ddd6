"Centers and offsets at the ends: nobody, empty batches, half precision, gradients."

import pytest
import torch
from logocap.center_offset import (
    example_fields,
    find_centers,
    person_centers,
    pointwise_head,
    sample_own_maps,
    score_poses,
    suppress_duplicates,
    upsample,
)
from logocap.keypoints import example_people, people_tensors


@pytest.fixture
def people():
    return people_tensors(example_people()['annotations'])[0]


def test_nobody(people):
    assert person_centers(torch.zeros(2, 17, 3)).equal(torch.zeros(2, 2))  # no labeled keypoints
    assert person_centers(people[:0]).shape == (0, 2)
    heatmaps, offsets = example_fields(people[:0], (256, 320))
    assert heatmaps.shape == (18, 64, 80) and not heatmaps.any() and not offsets.any()
    centers, valid = find_centers(torch.zeros(2, 32, 32))
    assert valid.sum(1).tolist() == [1, 1] and not centers[:, 0, 2].any()
    assert sample_own_maps(torch.rand(2, 17, 6, 6), torch.rand(2, 0, 17, 2)).shape == (2, 0, 17)


def test_own_maps_on_windows():
    own = torch.arange(17.0).view(1, 17, 1, 1).expand(2, 17, 6, 6)  # map k holds the number k
    read = sample_own_maps(own, torch.rand(2, 3, 17, 7, 5, 2))
    assert torch.allclose(read[1, 2, :, 6, 4], torch.arange(17.0), atol=1e-5)


def test_heads_have_gradients():
    torch.manual_seed(0)
    head = pointwise_head(120, 16, 18)
    features = torch.randn(2, 120, 8, 12, requires_grad=True)
    maps = upsample(head(features), (32, 48))
    assert maps.shape == (2, 18, 32, 48)
    maps.square().mean().backward()
    assert features.grad.abs().min() > 0
    for name, p in head.named_parameters():
        assert p.grad.abs().sum() > 0, name


def test_upsampled_maps_are_float32():
    assert upsample(torch.ones(1, 18, 2, 2).bfloat16(), (8, 8)).dtype == torch.float32


def test_scores_go_with_the_own_center(people):
    maps = torch.full((1, 18, 256, 320), 0.5)
    poses, centers = people[None, :2, :, :2], torch.tensor([[[0, 0, 0.8], [0, 0, 0.4]]])
    assert torch.allclose(score_poses(maps, poses, centers)[0, 0, :, 2], torch.tensor(0.4))
    maps[0, 3, 50, 91] = 1.0  # the first person's left ear
    scored = score_poses(maps, poses, centers)
    assert torch.allclose(scored[0, :, 3, 2], torch.tensor([0.8, 0.2]), atol=1e-4)
    assert scored[0, ..., :2].equal(people[:2, :, :2])


def test_suppression_at_the_ends(people):
    torch.manual_seed(1)
    crowd = people[torch.randint(3, (8, 30)), :, :2] + 4 * torch.randn(8, 30, 17, 2)
    scores, all_valid = torch.rand(8, 30), torch.ones(8, 30, dtype=torch.bool)
    assert not suppress_duplicates(crowd, scores, ~all_valid).any()
    assert suppress_duplicates(crowd[:, :1], scores[:, :1], all_valid[:, :1]).all()
    assert suppress_duplicates(crowd[:, :0], scores[:, :0], all_valid[:, :0]).shape == (8, 0)
    assert 8 <= suppress_duplicates(crowd, scores, all_valid).sum() < 8 * 29
