"Scores and folders, on the three drawn people and on real annotations."
import json
import numpy as np
import pytest
import torch
from logocap.coco import (
    CocoFolder, average_precision, check_annotations, coco_index, coco_results, example_people, oks,
    people_tensors,
)


def test_oks_where_nobody_is_labeled():
    data = example_people()['annotations']
    keypoints, _, _ = people_tensors(data)
    for person in data[:2]: person.update(keypoints=[0] * 51, num_keypoints=0)
    truth, areas, boxes = people_tensors(data)
    poses = keypoints[..., :2] + torch.tensor([90., -60.])
    assert (oks(poses[:, None], truth, areas)[:, :2] == 0).all()  # no boxes, no labels
    assert (oks(poses[:, None], truth, areas, boxes)[:, :2] > 0).any()
    assert oks(poses[:, None], *people_tensors([])).shape == (3, 0)


def test_sizes_that_nobody_has():
    data = example_people()
    data['annotations'] = [a for a in data['annotations'] if a['area'] < 96**2]
    assert average_precision(coco_index(data), [])['APL'] == -100


SEGMENT = dict(size=[256, 320], counts=[9])

@pytest.mark.parametrize('change, fault', (
    (dict(area='big'), "annotations[1] \"area\" is 'big', not a number from 0 to 1e10"),
    (dict(area=-1), 'annotations[1] "area" is -1, not a number from 0 to 1e10'),
    (dict(keypoints=None), 'annotations[1] "keypoints" is None, not 17×3 numbers'),
    (dict(keypoints=[1, 2, float('nan')] * 17), 'not 17×3 numbers'),
    (dict(bbox=[0, 0, -1, 5]), 'not x, y, width and height'),
    (dict(iscrowd=1, segmentation=SEGMENT), 'not polygons or RLE of the image'),
    (dict(iscrowd=1, segmentation=[[1, 2, 999, 4, 5, 6]]), 'not polygons or RLE of the image'),
    (dict(iscrowd=2), '"iscrowd" is 2, not 0 or 1'),
    (dict(num_keypoints=True), '"num_keypoints" is True, not 0 to 17'),
))
def test_faults_of_a_person(change, fault):
    data = example_people()
    data['annotations'][1].update(change)
    with pytest.raises(ValueError) as e: check_annotations(data, 'people.json')
    assert str(e.value).startswith('people.json: annotations[1] "') and fault in str(e.value)


def test_faults_of_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such folder'): CocoFolder(tmp_path/'nowhere')
    with pytest.raises(FileNotFoundError, match="no annotations of split 'test'"):
        CocoFolder(tmp_path, 'test')
    (tmp_path/'annotations').mkdir()
    file = tmp_path/'annotations/person_keypoints_val2017.json'
    file.write_text('{"images": [{"id": 3}]}')
    with pytest.raises(ValueError, match=r'images\[0\] has no "file_name"'): CocoFolder(tmp_path)
    file.write_text('{"images"')
    with pytest.raises(ValueError, match='not a JSON file'): CocoFolder(tmp_path)


def test_people_without_labels_may_have_no_area(tmp_path):
    "COCO has such people; they are not counted."
    data = example_people()
    data['annotations'][1].update(num_keypoints=0, keypoints=[0] * 51, area=0)
    (tmp_path/'annotations').mkdir()
    (tmp_path/'annotations/person_keypoints_val2017.json').write_text(json.dumps(data))
    assert len(CocoFolder(tmp_path).people(1)[0]) == 2


def test_secret_annotations(tmp_path):
    "Files of COCO's test images list no people."
    data = example_people()
    del data['annotations']
    (tmp_path/'annotations').mkdir()
    (tmp_path/'annotations/image_info_test-dev2017.json').write_text(json.dumps(data))
    folder = CocoFolder(tmp_path, 'test-dev2017')
    assert folder.image_ids(annotated=False) == [1] and folder.image_ids() == []


@pytest.mark.parametrize('split', ('val2017', 'train2017'))
def test_oks_equals_pycocotools(split, coco_mini):
    from pycocotools.cocoeval import COCOeval
    folder, rng = CocoFolder(coco_mini, split), np.random.default_rng(0)
    results, compared, unlabeled = [], 0, 0
    for i in folder.image_ids(annotated=False):
        truth, _, _ = people_tensors(folder.coco.imgToAnns[i])
        near = truth[..., :2].numpy() + rng.normal(0, 12, (len(truth), 17, 2))
        poses = np.concatenate([near, rng.uniform(0, 600, (2, 17, 2))])
        poses = np.concatenate([poses, np.ones((len(poses), 17, 1))], -1)
        results += coco_results(i, poses, rng.permutation(np.linspace(.1, .9, len(poses))))
    scorer = COCOeval(folder.coco, folder.coco.loadRes(results), 'keypoints')
    scorer._prepare()
    for i in folder.image_ids(annotated=False):
        theirs = scorer.computeOks(i, 1)
        if not len(theirs): continue
        detections = [r for r in results if r['image_id'] == i]
        detections = sorted(detections, key=lambda r: -r['score'])[:20]
        poses = torch.tensor([r['keypoints'] for r in detections]).view(-1, 17, 3)[..., :2]
        ours = oks(poses[:, None], *people_tensors(scorer._gts[i, 1]))
        assert np.abs(ours.numpy() - theirs).max() < 1e-6
        compared += theirs.size
        unlabeled += sum(a['num_keypoints'] == 0 for a in scorer._gts[i, 1])
    assert compared > 100 and unlabeled > 0


@pytest.mark.parametrize('split, images, people',
                         (('val2017', 23, 46), ('train2017', 61, 143)))
def test_folder(split, images, people, coco_mini):
    folder = CocoFolder(coco_mini, split)
    every = folder.image_ids(annotated=False)
    assert len(every) == images
    assert sum(a['num_keypoints'] > 0 for a in folder.coco.anns.values()) == people
    for i in every: assert folder.image_path(i).is_file()
    assert len(folder.image_ids()) < images  # some show nobody


def test_truth_scores_100(coco_mini):
    folder = CocoFolder(coco_mini)
    results = []
    for i in folder.image_ids():
        keypoints, areas, _ = folder.people(i)
        results += coco_results(i, keypoints, np.ones(len(keypoints)))
    for metric, points in average_precision(folder.coco, results).items():
        assert points == pytest.approx(100), metric
