"The window, the oracle and the bound at their edges."

import pytest
import torch
from logocap.keypoints import example_people, people_tensors
from logocap.coco import average_precision, coco_index, coco_results
from logocap.kem import window_mesh
from logocap.upper_bound import best_cells, reach
from logocap.tables import bound_results

PEOPLE, AREAS, _ = people_tensors(example_people()['annotations'])
TRUTH = coco_index(example_people())


def poses():
    "The three people with 6 px of error."
    return PEOPLE[..., :2] + 6 * torch.randn(3, 17, 2, generator=torch.manual_seed(2))


def detections(scores=(0.9, 0.5, 0.7)):
    return coco_results(1, torch.cat([poses(), torch.ones(3, 17, 1)], -1), scores)


def doubled(entry):
    "An annotation or a detection in an image of twice the size."
    keypoints = torch.tensor(entry['keypoints']).reshape(17, 3) * torch.tensor([2, 2, 1])
    return dict(entry, keypoints=keypoints.flatten().tolist(), bbox=[2 * v for v in entry['bbox']])


@pytest.mark.parametrize('size', (-1, 0, 2, 10))
def test_a_window_has_a_middle(size):
    for function in (window_mesh, lambda p, size: best_cells(p, p, size)):
        with pytest.raises(ValueError, match='must be odd'):
            function(poses(), size)


def test_nobody():
    assert window_mesh(PEOPLE[:0, :, :2]).shape == (0, 17, 11, 11, 2)
    assert reach(poses()[:0], PEOPLE, AREAS)[0].shape == (0, 17, 2)
    assert reach(poses()[:0], PEOPLE[:0], AREAS[:0])[0].shape == (0, 17, 2)
    assert bound_results(TRUTH, []) == []


def test_scores_stay_the_networks():
    moved = bound_results(TRUTH, detections())
    assert [d['score'] for d in moved] == [0.9, 0.5, 0.7]


def test_the_window_is_laid_out_in_px_of_the_network_input():
    "In an image of twice the size, two of its px to one of the input, the bound is the same."
    large = example_people()
    large['annotations'] = [dict(doubled(a), area=4 * a['area']) for a in large['annotations']]
    large, double = coco_index(large), [doubled(d) for d in detections()]
    bound = average_precision(TRUTH, bound_results(TRUTH, detections()))['AP']
    same = average_precision(large, bound_results(large, double, pixels={1: 2.0}))['AP']
    smaller = average_precision(large, bound_results(large, double))['AP']
    assert same == pytest.approx(bound, abs=1e-6) and smaller < bound


def test_crowds_and_people_without_labels_attract_nobody():
    data = example_people()
    data['annotations'][0].update(iscrowd=1)
    data['annotations'][1].update(keypoints=[0] * 51, num_keypoints=0)
    moved = bound_results(coco_index(data), detections())
    moved = torch.tensor([d['keypoints'] for d in moved]).view(3, 17, 3)[..., :2]
    onto_the_third, _, _ = reach(poses(), PEOPLE[2:], AREAS[2:])
    assert torch.allclose(moved, onto_the_third, atol=1e-3)
