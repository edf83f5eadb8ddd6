"The decoder of associative embedding as a whole against one that looks at one picture, keypoint and person after the other."
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from logocap.coco import network_input
from logocap.hrnet import embedded_weights
from logocap.people import draw_people
from logocap.prior.associative_embedding import ORDER, AssociativeEmbedding, tag_poses


def slow_peaks(heat, n):
    "Pixels that are the first of the highest in the 5×5 around them: (x, y, height), highest first."
    peaks = []
    for y, x in np.argwhere(heat > .1):
        top, left = max(y - 2, 0), max(x - 2, 0)
        around = heat[top:y + 3, left:x + 3]
        if divmod(around.argmax(), around.shape[1]) == (y - top, x - left): peaks.append((x, y, heat[y, x]))
    return sorted(peaks, key=lambda p: (-p[2], p[1], p[0]))[:n]


def slow_step(heat, x, y):
    "A quarter of a pixel to the higher side, and back from the upsampled map to the keypoint."
    (h, w), at = heat.shape, lambda x, y: heat[min(max(y, 0), heat.shape[0] - 1), min(max(x, 0), heat.shape[1] - 1)]
    return (x + (.25 if at(x + 1, y) > at(x - 1, y) else -.25) - 1.5, y + (.25 if at(x, y + 1) > at(x, y - 1) else -.25) - 1.5)


def slow_poses(heatmaps, tags, size, people):
    "Poses P×17×3 and scores P of one picture."
    heat = F.interpolate(heatmaps[None], size, mode='bilinear', align_corners=False)[0].numpy()
    wide, persons = F.interpolate(tags, size, mode='bilinear', align_corners=False).numpy(), []
    for k in ORDER:
        peaks = [(x, y, v, wide[k, :, y, x]) for x, y, v in slow_peaks(heat[k], people)]
        far = {(i, p): np.linalg.norm(peak[3] - np.mean(person['tags'], 0)) for i, peak in enumerate(peaks) for p, person in enumerate(persons)}
        owner = {}
        for i, p in sorted((ip for ip in far if far[ip] < 1), key=lambda ip: (100 * np.round(far[ip]) - peaks[ip[0]][2] + far[ip] / 1000, ip)):
            if i not in owner and p not in owner.values(): owner[i] = p
        for i, (x, y, v, tag) in enumerate(peaks):
            if i not in owner:
                if len(persons) == people: continue
                owner[i] = len(persons)
                persons.append(dict(tags=[], at={}))
            persons[owner[i]]['at'][k] = (x, y, v)
            persons[owner[i]]['tags'].append(tag)
    poses = np.zeros((len(persons), 17, 3), np.float32)
    for p, person in enumerate(persons):
        for k in range(17):
            if k in person['at']: x, y, v = person['at'][k]
            else:
                value = heat[k] - np.round(np.linalg.norm(wide[k] - np.mean(person['tags'], 0)[:, None, None], axis=0))
                y, x = np.unravel_index(value.argmax(), value.shape)
                v = heat[k, y, x]
            if v > 0: poses[p, k] = (*slow_step(heat[k], x, y), v)
    return poses, np.array([sum(v for _, _, v in person['at'].values()) / 17 for person in persons])


def check(heatmaps, tags, size, people):
    out = tag_poses(heatmaps, tags, size, people)
    for poses, scores, valid, heat, tag in zip(out['poses'], out['scores'], out['valid'], heatmaps, tags):
        expected, expected_scores = slow_poses(heat, tag, size, people)
        assert valid.tolist() == [i < len(expected) for i in range(people)]
        np.testing.assert_allclose(poses[valid], expected, atol=1e-5)
        np.testing.assert_allclose(scores[valid], expected_scores, atol=1e-6)
    trimmed = tag_poses(heatmaps, tags, size, people, trim=True)
    for name in out: assert torch.equal(trimmed[name], out[name][:, :max(int(out['valid'].sum(1).max()), 1)]), name
    return out


@pytest.mark.parametrize('people', [30, 4])  # room for all; fewer places than peaks and people
@pytest.mark.parametrize('dimensions', [1, 2])  # without and with the flip test
def test_random_maps(people, dimensions):
    torch.manual_seed(people + dimensions)
    heat, tags = torch.rand(3, 17, 10, 12)**6 - .05, torch.randn(3, 17, dimensions, 10, 12)
    heat[1, 5:9] = 0  # keypoints that nobody has
    heat[2] = -1
    out = check(heat, tags, (40, 48), people)
    assert out['valid'].sum(1).tolist() == ([people, people, 0] if people == 4 else [*out['valid'][:2].sum(1).tolist(), 0])


@pytest.mark.parametrize('flip_test', [False, True])
def test_maps_of_the_network(flip_test):
    if AssociativeEmbedding.weights not in embedded_weights(): pytest.skip('its weights do not come along with this copy')
    model = AssociativeEmbedding.from_pretrained()
    images = torch.stack([network_input(draw_people(3, n, (128, 128), .5)[0], 128)[0] for n in range(3)])
    with torch.inference_mode(): assert check(*(m.contiguous() for m in model.fields(images, flip_test)), (128, 128), 30)['valid'].any()
