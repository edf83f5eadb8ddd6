"Associative embedding against versions that look at one image, keypoint and person at a time."

import itertools
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastcore.test import test_close as assert_close
from logocap.center_offset import upsample
from logocap.keypoints import example_people, people_tensors
from logocap.images import network_input
from logocap.checkpoints import embedded_weights
from logocap.people import draw_people
from logocap.prior.associative_embedding import (
    ORDER,
    AssociativeEmbedding,
    associative_embedding_losses,
    find_peaks,
    group_peaks,
    pair_up,
    tag_loss,
    tag_poses,
)
from logocap.training import preset_recipe


def slow_peaks(heat, n):
    "Pixels that are the first of the highest in their 5×5: (x, y, height), highest first."
    peaks = []
    for y, x in np.argwhere(heat > 0.1):
        top, left = max(y - 2, 0), max(x - 2, 0)
        around = heat[top : y + 3, left : x + 3]
        if divmod(around.argmax(), around.shape[1]) == (y - top, x - left):
            peaks.append((x, y, heat[y, x]))
    return sorted(peaks, key=lambda p: (-p[2], p[1], p[0]))[:n]


def slow_step(heat, x, y):
    "A quarter of a pixel to the higher side, and back from the upsampled map to the keypoint."

    def height(x, y):
        row = min(max(y, 0), heat.shape[0] - 1)
        column = min(max(x, 0), heat.shape[1] - 1)
        return heat[row, column]

    step_x = 0.25 if height(x + 1, y) > height(x - 1, y) else -0.25
    step_y = 0.25 if height(x, y + 1) > height(x, y - 1) else -0.25
    return x + step_x - 1.5, y + step_y - 1.5


def slow_owners(peaks, persons):
    "Peaks (x, y, height, tag) and persons with tags → person of each peak that has one."
    far = {}
    for i, (_, _, _, tag) in enumerate(peaks):
        for p, person in enumerate(persons):
            far[i, p] = np.linalg.norm(tag - np.mean(person['tags'], 0))

    def cost(pair):
        height = peaks[pair[0]][2]
        return 100 * np.round(far[pair]) - height + far[pair] / 1000, pair

    owner = {}
    for i, p in sorted((pair for pair in far if far[pair] < 1), key=cost):
        if i not in owner and p not in owner.values():
            owner[i] = p
    return owner


def slow_groups(peaks, people):
    "For each keypoint its peaks → persons, each with tags and, per keypoint, x, y, height."
    persons = []
    for k in ORDER:
        owner = slow_owners(peaks[k], persons)
        for i, (x, y, height, tag) in enumerate(peaks[k]):
            if i not in owner:
                if len(persons) == people:
                    continue
                owner[i] = len(persons)
                persons.append(dict(tags=[], at={}))
            persons[owner[i]]['at'][k] = (x, y, height)
            persons[owner[i]]['tags'].append(tag)
    return persons


def slow_again(heat, tags, mean):
    "The highest pixel of one keypoint's map that has about this tag: x, y, height."
    value = heat - np.round(np.linalg.norm(tags - mean[:, None, None], axis=0))
    y, x = np.unravel_index(value.argmax(), value.shape)
    return x, y, heat[y, x]


def slow_poses(heatmaps, tags, size, people):
    "Poses P×17×3 and scores P of one image."
    heat = F.interpolate(heatmaps[None], size, mode='bilinear', align_corners=False)[0].numpy()
    wide = F.interpolate(tags, size, mode='bilinear', align_corners=False).numpy()
    peaks = []
    for k in range(17):
        found = slow_peaks(heat[k], people)
        peaks.append([(x, y, height, wide[k, :, y, x]) for x, y, height in found])
    persons = slow_groups(peaks, people)

    poses = np.zeros((len(persons), 17, 3), np.float32)
    for p, person in enumerate(persons):
        for k in range(17):
            if k in person['at']:
                x, y, height = person['at'][k]
            else:
                x, y, height = slow_again(heat[k], wide[k], np.mean(person['tags'], 0))
            if height > 0:
                poses[p, k] = (*slow_step(heat[k], x, y), height)
    scores = [sum(height for _, _, height in person['at'].values()) / 17 for person in persons]
    return poses, np.array(scores)


def check(heatmaps, tags, size, people):
    "The decoder as a whole against `slow_poses`; trimmed it says the same."
    out = tag_poses(heatmaps, tags, size, people)
    for b in range(len(heatmaps)):
        poses, scores, valid = out['poses'][b], out['scores'][b], out['valid'][b]
        expected, expected_scores = slow_poses(heatmaps[b], tags[b], size, people)
        assert valid.tolist() == [i < len(expected) for i in range(people)]
        np.testing.assert_allclose(poses[valid], expected, atol=1e-5)
        np.testing.assert_allclose(scores[valid], expected_scores, atol=1e-6)
    trimmed = tag_poses(heatmaps, tags, size, people, trim=True)
    most = max(int(out['valid'].sum(1).max()), 1)
    for name in out:
        assert torch.equal(trimmed[name], out[name][:, :most]), name
    return out


@pytest.mark.parametrize('people', [30, 4])  # room for all; fewer places than peaks and people
@pytest.mark.parametrize('dimensions', [1, 2])  # without and with the flip test
def test_random_maps(people, dimensions):
    torch.manual_seed(people + dimensions)
    heat, tags = torch.rand(3, 17, 10, 12) ** 6 - 0.05, torch.randn(3, 17, dimensions, 10, 12)
    heat[1, 5:9] = 0  # keypoints that nobody has
    heat[2] = -1
    out = check(heat, tags, (40, 48), people)
    found = out['valid'].sum(1).tolist()
    if people == 4:
        assert found == [4, 4, 0]
    assert found[2] == 0


@pytest.mark.parametrize('flip_test', [False, True])
def test_maps_of_the_network(flip_test):
    if AssociativeEmbedding.weights not in embedded_weights():
        pytest.skip('its weights do not come along with this copy')
    model = AssociativeEmbedding.from_pretrained()
    images = []
    for n in range(3):
        image, _ = draw_people(3, n, (128, 128), 0.5)
        images.append(network_input(image, 128)[0])
    with torch.inference_mode():
        heat, tags = model.fields(torch.stack(images), flip_test)
        out = check(heat.contiguous(), tags.contiguous(), (128, 128), 30)
    assert out['valid'].any()


def slow_tag_loss(tags, people):
    "Pull and push with loops over images, people and pairs."
    pulls, pushes = [], []
    for maps, persons in zip(tags, people):
        means, pull = [], 0.0
        for person in persons:
            own = []
            for k, (x, y, v) in enumerate(person.tolist()):
                if v > 0:
                    own.append(maps[k, int(y) // 4, int(x) // 4])
            if not own:
                continue
            own = torch.stack(own)
            means.append(own.mean())
            pull += (own - own.mean()).square().mean()
        pairs = [torch.exp(-((a - b) ** 2)) for a in means for b in means if a is not b]
        pulls.append(pull / max(len(means), 1))
        pushes.append(sum(pairs) / 2 / max(len(pairs), 1))
    return sum(pulls) / len(tags), sum(pushes) / len(tags)


@pytest.fixture
def tags():
    torch.manual_seed(0)
    return torch.randn(3, 17, 16, 16, requires_grad=True)


@pytest.fixture
def somebody(tags):
    "One person in the first image, nobody in the second; at whole cells, where both ways agree."
    places, labeled = torch.randint(0, 16, (3, 4, 17, 2)) * 4.0, torch.randint(0, 2, (3, 4, 17, 1))
    people = torch.cat([places, labeled], -1)
    people[0, 1:, :, 2] = 0
    people[1, ..., 2] = 0
    return people


def test_tag_loss(tags, somebody):
    for fast, slow in zip(tag_loss(tags, somebody), slow_tag_loss(tags, somebody)):
        assert_close(fast.detach(), slow.detach(), 1e-6)
    sum(tag_loss(tags, somebody)).backward()
    assert tags.grad[0].abs().sum() > 0 and tags.grad[2].abs().sum() > 0
    assert not tags.grad[1].any()


def test_tag_loss_of_nobody(tags, somebody):
    for people in (somebody[1:2], somebody[:, :0]):
        assert [loss.item() for loss in tag_loss(tags[: len(people)], people)] == [0, 0]


def test_tag_loss_of_equal_tags(somebody):
    level = torch.full((1, 17, 16, 16), 3.0)  # the same for everybody: all to push
    assert_close([loss.item() for loss in tag_loss(level, somebody[2:])], [0, 0.5], 1e-6)


def test_peaks_take_tags_along():
    torch.manual_seed(0)
    maps, tags = torch.rand(2, 17, 12, 16), torch.randn(2, 17, 2, 12, 16)
    upsampled = upsample(maps, (48, 64))
    wide = upsample(tags.flatten(1, 2), (48, 64)).unflatten(1, (17, 2))
    peaks, own = find_peaks(upsampled, tags, 9)
    for b, k, i in itertools.product(range(2), (0, 16), range(9)):
        x, y, height = peaks[b, k, i].tolist()
        x, y = int(x), int(y)
        around = upsampled[b, k, max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
        assert height == around.max().item()
        assert_close(own[b, k, i], wide[b, k, :, y, x], 1e-5)


def test_pairs():
    "What pair_up does, step by step."
    torch.manual_seed(0)
    cost = torch.where(torch.rand(200, 5, 4) < 0.6, torch.rand(200, 5, 4), torch.inf)
    cost[0], cost[1] = torch.inf, 0.5  # nothing fits; all fit equally
    expected = torch.full((200, 5), -1)
    for person, matrix in zip(expected, cost):
        pairs = [(matrix[i, p].item(), i, p) for i in range(5) for p in range(4)]
        for value, i, p in sorted(pairs):
            if value < float('inf') and person[i] < 0 and p not in person:
                person[i] = p
    assert torch.equal(pair_up(cost), expected)


@pytest.mark.parametrize('people', [30, 5])  # room for all; too little room
@pytest.mark.parametrize('kind', ['two numbers', 'one', 'nothing'])
def test_groups(people, kind):
    torch.manual_seed(0)
    heights = torch.rand(4, 17, 6, 1).sort(2, descending=True)[0] - 0.3
    tags = torch.randint(0, 3, (4, 17, 6, 2)) + 0.4 * torch.randn(4, 17, 6, 2)
    peaks = torch.cat([torch.randint(1, 99, (4, 17, 6, 2)).float(), heights], -1)
    if kind == 'one':
        tags = tags[..., :1]
    if kind == 'nothing':
        tags = tags * 0
    poses, means, valid = group_peaks(peaks, tags, people)
    for b in range(4):
        listed = []
        for k in range(17):
            own = zip(peaks[b, k].numpy(), tags[b, k].numpy())
            listed.append([(*peak, tag) for peak, tag in own if peak[2] > np.float32(0.1)])
        persons = slow_groups(listed, people)
        assert valid[b].sum() == len(persons)
        expected = torch.zeros(people, 17, 3)
        for p, person in enumerate(persons):
            for k, at in person['at'].items():
                expected[p, k] = torch.tensor(at)
            assert_close(means[b, p], torch.tensor(np.mean(person['tags'], 0)), 1e-5)
        assert torch.equal(poses[b], expected)


@pytest.mark.parametrize('trim', [False, True])
@pytest.mark.parametrize('height', [0.0, -1.0])
def test_nobody(height, trim):
    flat = torch.full((2, 17, 16, 16), height)
    assert tag_poses(flat, flat[:, :, None], (64, 64), trim=trim)['valid'].sum() == 0


def test_the_same_everywhere():
    "One person, in the corner."
    out = tag_poses(torch.ones(2, 17, 16, 16), torch.zeros(2, 17, 1, 16, 16), (64, 64))
    assert out['valid'].sum(1).tolist() == [1, 1]
    assert all(values.isfinite().all() for values in out.values())


def test_more_people_than_room():
    people, _, _ = people_tensors(example_people()['annotations'])
    heat, tags = torch.zeros(1, 17, 64, 80), torch.zeros(1, 17, 1, 64, 80)
    for i, person in enumerate(people):
        for k, (x, y, v) in enumerate(person.tolist()):
            if v == 0:
                continue
            heat[0, k, int(y) // 4, int(x) // 4] = 0.9
            tags[0, k, 0, int(y) // 4, int(x) // 4] = 4.0 * i
    assert tag_poses(heat, tags, (256, 320), 30)['valid'].sum() >= 3
    assert tag_poses(heat, tags, (256, 320), 2)['valid'].sum() == 2


@pytest.fixture
def model():
    torch.manual_seed(0)
    return AssociativeEmbedding(4, 8, 8, 8).eval()


def test_shapes(model):
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        heat, tags = model.fields(images, True)
    with torch.no_grad():
        _, plain = model.fields(images)
    assert heat.shape == (2, 17, 16, 24)
    assert tags.shape == (2, 17, 2, 16, 24) and plain.shape == (2, 17, 1, 16, 24)
    assert model.poses_of((heat, tags), (64, 96))['full']['poses'].shape[2:] == (17, 3)
    black = torch.zeros(64, 96, 3).byte().numpy()
    with pytest.raises(ValueError, match="level 'none'"):
        model.predict(black, level='none')


def test_losses(model):
    images = torch.randn(2, 3, 64, 96)
    people = torch.cat([torch.rand(2, 3, 17, 2) * 60, torch.ones(2, 3, 17, 1)], -1)
    targets = dict(heatmaps=torch.rand(2, 18, 16, 24), people=people)
    targets['heatmap_weight'] = torch.ones(2, 1, 16, 24)
    model.train()
    losses = associative_embedding_losses(model, images, targets, {}, preset_recipe('people'))
    parts = sum(losses[name].item() for name in ('heatmaps', 'pull', 'push'))
    assert_close(losses['total'].item(), parts, 1e-6)
    aligned = preset_recipe('people_aligned')
    with pytest.raises(ValueError, match='not aligned'):
        associative_embedding_losses(model, images, targets, {}, aligned)
