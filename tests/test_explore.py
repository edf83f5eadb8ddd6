"What the widgets of room 13 read: edge cases of the functions behind them."

import numpy as np
import pytest
import torch
from logocap.adaptation import reweighing_window
from logocap.keypoints import KEYPOINTS, SIGMAS, keypoint_similarity, oks
from logocap.images import transform_points
from logocap.lab.explore import (
    decode,
    encode,
    found_candidates,
    frames,
    gaussian_window,
    keypoint_story,
    look,
    new_figure,
    similarity_at,
    thresholds_passed,
    tolerance,
    top_two,
)
from logocap.model import LogoCap
from logocap.people import draw_people


@pytest.fixture(scope='module')
def model():
    return LogoCap.from_pretrained()


@pytest.fixture(scope='module')
def drawn():
    return draw_people(4, 3, (256, 256), 0.3)


@pytest.fixture(scope='module')
def seen(model, drawn):
    return look(model, drawn)


def best_oks(poses, people, areas):
    "The largest OKS of any of N×17×2 poses with each of the people."
    return oks(poses[:, None], people, areas).amax(0)


def test_the_same_people_as_predict(model, drawn, seen):
    poses = model.predict(drawn[0], flip_test=False)
    theirs = best_oks(torch.tensor(poses.keypoints[..., :2]), seen['people'], seen['areas'])
    ours = best_oks(seen['poses'][0, :, :, :2], seen['people'], seen['areas'])
    assert torch.allclose(theirs, ours, atol=1e-4)


def test_an_image_of_twice_the_size(model, drawn, seen):
    "The truth moves along with it, and the way back leads to its own pixels."
    image = drawn[0].repeat(2, 0).repeat(2, 1)
    annotations = []
    for a in drawn[1]:
        keypoints = np.array(a['keypoints'], float).reshape(17, 3)
        keypoints[:, :2] = 2 * keypoints[:, :2] + 0.5
        annotations.append(dict(a, area=4 * a['area'], keypoints=keypoints.flatten().tolist()))
    large = look(model, (image, annotations))
    worth = [oks(s['initial'][0, s['own']], s['people'], s['areas']) for s in (large, seen)]
    assert torch.allclose(*worth, atol=0.02)
    back = transform_points(large['people'][..., :2], large['back'])[0]
    truth = torch.tensor(annotations[0]['keypoints']).view(17, 3)[:, :2]
    assert torch.allclose(back, truth, atol=1e-3)


def test_every_keypoint_has_its_story(seen):
    "One keypoint alone is what it was in company."
    for person, n in enumerate(seen['own']):
        for k in range(17):
            story = keypoint_story(seen, person, k)
            assert torch.allclose(story['final'], seen['poses'][0, n, k, :2], atol=1e-3)
            mixed = 0.75 * story['first'] + 0.25 * story['second']
            assert torch.allclose(mixed, story['final'], atol=1e-4)
            x, y = (story['first'] - story['initial']).round().long() + 48
            assert story['after'][y, x] == story['after'].max()
            assert (story['truth'] is None) == bool(seen['people'][person, k, 2] == 0)


def test_frames():
    fig, (ax,) = new_figure(2, 1, 1)

    def show(x):
        ax.clear()
        ax.plot([0, x], [0, 1])
        return f'<b>x</b> is {x} &lt; 10'

    text = frames(fig, show, {'a "small" x': dict(x=2), 'large': dict(x=8)}, 'x', start=1)
    assert 'alt="x is 8 &lt; 10"' in text
    assert 'data-label="a &quot;small&quot; x" style="display:none"' in text
    show(2)
    small = encode(fig)
    show(8)
    assert encode(fig) != small
    with pytest.raises(ValueError, match='frame 1 of 1'):
        frames(fig, show, {'a': dict(x=1)}, 'x', start=1)


@pytest.mark.parametrize('k', (0, 5, 16))
@pytest.mark.parametrize('area', (900.0, 12000.0))
@pytest.mark.parametrize('similarity', (0.5, 0.95))
def test_tolerance_is_where_similarity_falls(k, area, similarity):
    sigma = SIGMAS[k].item()
    d = tolerance(sigma, area, similarity)
    assert abs(similarity_at((d, 0), sigma, area).item() - similarity) < 1e-6


def test_similarity_of_all_keypoints(seen):
    truth, area = seen['people'][0, :, :2], seen['areas'][0]
    theirs = keypoint_similarity(truth + torch.tensor([3.0, 2]), truth, area)
    for k in range(len(KEYPOINTS)):
        assert abs(similarity_at((3, 2), SIGMAS[k].item(), area.item()) - theirs[k]) < 1e-5
    assert similarity_at(torch.zeros(4, 5, 2), 0.05, 100.0).shape == (4, 5)


def test_thresholds():
    passed = [thresholds_passed(s) for s in (0.49, 0.5, 0.75, 0.949, 0.95, 1)]
    assert passed == [0, 1, 6, 9, 10, 10]


def test_gaussian():
    assert torch.allclose(gaussian_window(16.0), reweighing_window(), atol=1e-6)
    assert abs(gaussian_window(8.0)[48, 56].item() - np.exp(-0.5)) < 1e-5
    assert gaussian_window(4.0)[0, 0] == 0


def test_decoder(model, drawn, seen):
    pair = top_two(seen)[:, None]
    _, scores, keep = decode(pair, seen['centers'])
    order = scores[0].argsort(descending=True).tolist()
    alone = look(model, (drawn[0], []))
    assert [n for n in order if keep[0, n]] == found_candidates(seen) == alone['own']
    assert decode(pair, seen['centers'], candidates=1)[2].sum() == 1
    assert decode(pair, seen['centers'], threshold=2.0)[2].sum() == 1  # the best always stays
