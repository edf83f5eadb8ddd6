"The adaptation at the ends: nobody, nothing there, batches, gradients; what ablations are."

import pytest
import torch
from logocap.adaptation import (
    adapt,
    attract,
    attract_locally,
    pose_scores,
    read_out,
    reweigh,
    reweighing_window,
)
from logocap.center_offset import example_fields, upsample
from logocap.keypoints import example_people, keypoint_similarity, people_tensors
from logocap.kem import global_kem, global_mesh, local_mesh


@pytest.fixture(scope='module')
def maps():
    "Global maps, perfect attraction maps, initial poses, centers, local mesh."
    people, areas, _ = people_tensors(example_people()['annotations'])
    torch.manual_seed(3)
    poses = people[None, ..., :2] + 5 * torch.randn(1, 3, 17, 2)
    heatmaps = upsample(example_fields(people, (256, 320))[0][None], (256, 320))
    kem, mesh = global_kem(heatmaps, global_mesh(poses)), local_mesh(poses)
    cells = mesh.permute(3, 4, 0, 1, 2, 5)
    kam = keypoint_similarity(cells, people[..., :2], areas).permute(2, 3, 4, 0, 1)
    return kem, kam, poses, torch.tensor([1.0, 1, 0.5]).expand(1, 3, 3), mesh


def test_window_is_symmetric():
    g = reweighing_window()
    assert torch.allclose(g, g.T) and g.equal(g.flip(0))
    assert reweigh(torch.ones(1, 2, 17, 97, 97))[0, 1, 3].equal(g)


def test_step_of_thirty_people():
    one = torch.zeros(2, 30, 17, 11, 11)
    one[..., 8, 9] = 1  # 3 down, 4 to the right
    maps = torch.rand(2, 30, 17, 97, 97)
    moved = attract(maps, one)[1, 29, 16, 3:, 4:] * 121
    assert torch.allclose(moved, maps[1, 29, 16, :-3, :-4], atol=1e-5)


@pytest.mark.parametrize('capability', ('AVX2', 'AVX512'))
def test_both_ways_have_gradients(capability, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: capability)
    torch.manual_seed(0)
    options = dict(dtype=torch.float64, requires_grad=True)
    inputs = torch.rand(1, 1, 2, 9, 9, **options), torch.rand(1, 1, 2, 3, 3, **options)
    assert torch.autograd.gradcheck(attract, inputs)


def test_nobody():
    kem, kam = torch.zeros(2, 0, 17, 97, 97), torch.zeros(2, 0, 17, 11, 11)
    assert attract(kem, kam).shape == kem.shape
    out = read_out(kem[:1], torch.zeros(1, 0, 17, 2), torch.zeros(1, 0, 3))
    assert out.shape == (1, 0, 17, 3)


def test_nothing_there():
    "Such people score 0 and are dropped."
    kem, kam = torch.zeros(1, 30, 17, 97, 97), torch.rand(1, 30, 17, 11, 11)
    out = adapt(kem, kam, torch.full((1, 30, 17, 2), -900.0), torch.ones(1, 30, 3))
    assert pose_scores(out).equal(torch.zeros(1, 30))


def test_a_batch_of_two_is_twice_one(maps):
    kem, kam, poses, centers, _ = maps
    full = adapt(kem, kam, poses, centers)
    two = adapt(*(t.expand(2, *t.shape[1:]) for t in (kem, kam, poses, centers)))
    assert torch.allclose(two[1], full[0], atol=1e-4)
    assert torch.allclose(full[..., 2] * 2, adapt(kem, kam, poses, torch.ones(1, 3, 3))[..., 2])


def test_ablations(maps):
    kem, kam, poses, centers, mesh = maps
    alone, delta = adapt(kem, None, poses, centers), torch.zeros_like(kam)
    delta[..., 5, 5] = 121
    by_delta = adapt(kem, delta, poses, centers)
    # no map is a map of one cell; where two cells are equally high, rounding decides between them
    close = (alone - by_delta)[..., :2].norm(dim=-1) < 1e-3
    assert close[alone[..., 2] > 0.01].float().mean() > 0.9
    shifted = adapt(kem, None, poses, centers, shift=-1.5)
    assert torch.allclose(shifted[..., :2], alone[..., :2] - 1.5, atol=1e-5)
    no_gaussian = adapt(kem, kam, poses, centers, gaussian=False)
    assert no_gaussian.equal(read_out(attract(kem, kam), poses, centers))


def test_partial_is_scored_by_map_and_center(maps):
    _, kam, _, centers, mesh = maps
    partial = attract_locally(kam, mesh, centers)
    assert torch.allclose(partial[..., 2], 0.5 * kam.flatten(3).amax(-1), atol=1e-6)
