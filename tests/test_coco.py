"Scores and folders, on the three drawn people and on real annotations."

import json
import numpy as np
import pytest
import torch
from logocap.keypoints import example_people, oks, people_tensors
from logocap.annotations import load_annotations
from logocap.coco import CocoFolder, average_precision, coco_index, coco_results


def test_oks_where_nobody_is_labeled():
    data = example_people()['annotations']
    keypoints, _, _ = people_tensors(data)
    for person in data[:2]:
        person.update(keypoints=[0] * 51, num_keypoints=0)
    truth, areas, boxes = people_tensors(data)
    poses = keypoints[..., :2] + torch.tensor([90.0, -60.0])
    assert (oks(poses[:, None], truth, areas)[:, :2] == 0).all()  # no boxes, no labels
    assert (oks(poses[:, None], truth, areas, boxes)[:, :2] > 0).any()
    assert oks(poses[:, None], *people_tensors([])).shape == (3, 0)


def test_sizes_that_nobody_has():
    data = example_people()
    data['annotations'] = [a for a in data['annotations'] if a['area'] < 96**2]
    assert average_precision(coco_index(data), [])['APL'] == -100


SEGMENT = dict(size=[256, 320], counts=[9])


@pytest.mark.parametrize(
    'change, fault',
    (
        (dict(area='big'), ".area is 'big': Expected `float | null`, got `str`"),
        (dict(area=-1), '.area is -1: Expected `float` >= 0.0'),
        (dict(keypoints='none'), ".keypoints is 'none': Expected `array | null`, got `str`"),
        (
            dict(keypoints=[1, 2, 2] * 16),
            '.keypoints is [1.0, 2.0, 2.0, 1.0, 2.0, 2.0, ...]: expect',
        ),
        (dict(keypoints=[1, 2, 9] * 17), 'expected 17 times x, y and v, which is 0 to 3'),
        (dict(bbox=[0, 0, -1, 5]), 'expected x, y, width and height'),
        (dict(iscrowd=1, segmentation=SEGMENT), 'expected polygons or RLE of the image'),
        (dict(iscrowd=1, segmentation=[[1, 2, 999, 4, 5, 6]]), 'expected polygons or RLE'),
        (dict(iscrowd=2), '.iscrowd is 2: Expected `int` <= 1'),
        (dict(num_keypoints=True), '.num_keypoints is True: Expected `int | null`, got `bool`'),
    ),
)
def test_faults_of_a_person(change, fault, tmp_path):
    data = example_people()
    data['annotations'][1].update(change)
    file = tmp_path / 'people.json'
    file.write_text(json.dumps(data))
    with pytest.raises(ValueError) as e:
        load_annotations(file)
    assert str(e.value).startswith(f'{file}: annotations[1].') and fault in str(e.value)


def written(tmp_path, data, **options):
    "A folder with these annotations."
    (tmp_path / 'annotations').mkdir()
    file = tmp_path / 'annotations/person_keypoints_val2017.json'
    file.write_text(json.dumps(data), **options)
    return CocoFolder(tmp_path)


def test_what_annotation_tools_leave_out(tmp_path, capsys):
    """No info, counts, areas or crowds, a byte order mark, ids and categories from 0, a box
    without keypoints, further categories: read as COCO would have it, in one line."""
    data, whole = example_people(), example_people()
    for i, person in enumerate(data['annotations']):
        for name in ('num_keypoints', 'iscrowd', 'area'):
            del person[name]
        person.update(id=i, category_id=0)
    boxed = dict(id=3, image_id=1, category_id=0, bbox=[5, 5, 10, 20], keypoints=[])
    car = dict(id=4, image_id=1, category_id=1, bbox=[5, 5, 10, 20])
    data['annotations'] += [boxed, car]
    data['categories'] = [dict(data['categories'][0], id=0), dict(id=1, name='car')]
    folder = written(tmp_path, data, encoding='utf-8-sig')
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and '1 of other categories left out' in said
    assert '1 area (from the box) completed' in said
    for read, meant in zip(folder.people(1), people_tensors(whole['annotations'])):
        assert read.shape == meant.shape
    keypoints, areas, _ = folder.people(1)
    assert (keypoints == people_tensors(whole['annotations'])[0]).all()
    poses = np.concatenate([keypoints[..., :2], np.ones((3, 17, 1))], -1)
    assert average_precision(folder.coco, coco_results(1, poses, np.ones(3)))['AP'] > 99.9


def test_categories_that_would_be_a_guess(tmp_path, capsys):
    "COCO's names in another order, or two kinds of keypoints; two categories of one kind are one."
    for name in 'abc':
        (tmp_path / name).mkdir()
    data = example_people()
    data['categories'][0]['keypoints'] = data['categories'][0]['keypoints'][::-1]
    with pytest.raises(ValueError, match="not in COCO's order"):
        written(tmp_path / 'a', data)
    data['categories'] = [dict(id=1, keypoints=['a']), dict(id=7, keypoints=['b'])]
    with pytest.raises(ValueError, match='categories 1, 7 name different keypoints'):
        written(tmp_path / 'b', data)
    data = example_people()
    data['categories'].append(dict(data['categories'][0], id=7))
    data['annotations'][0]['category_id'] = 7
    assert len(written(tmp_path / 'c', data).people(1)[0]) == 3
    assert '3 of 2 categories of the same keypoints taken as one' in capsys.readouterr().err


def test_faults_of_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such folder'):
        CocoFolder(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match="no annotations of split 'test'"):
        CocoFolder(tmp_path, 'test')
    (tmp_path / 'annotations').mkdir()
    file = tmp_path / 'annotations/person_keypoints_val2017.json'
    file.write_text('{"images": [{"id": 3}]}')
    with pytest.raises(ValueError, match=r'images\[0\]: Object missing required field `file_name`'):
        CocoFolder(tmp_path)
    file.write_text('{"images"')
    with pytest.raises(ValueError, match='not a JSON file'):
        CocoFolder(tmp_path)


def test_people_without_labels_may_have_no_area(tmp_path):
    "COCO has such people; they are not counted."
    data = example_people()
    data['annotations'][1].update(num_keypoints=0, keypoints=[0] * 51, area=0)
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations/person_keypoints_val2017.json').write_text(json.dumps(data))
    assert len(CocoFolder(tmp_path).people(1)[0]) == 2


def test_secret_annotations(tmp_path):
    "Files of COCO's test images list no people."
    data = example_people()
    del data['annotations']
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations/image_info_test-dev2017.json').write_text(json.dumps(data))
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
        results += coco_results(i, poses, rng.permutation(np.linspace(0.1, 0.9, len(poses))))
    scorer = COCOeval(folder.coco, folder.coco.loadRes(results), 'keypoints')
    scorer._prepare()
    for i in folder.image_ids(annotated=False):
        theirs = scorer.computeOks(i, 1)
        if not len(theirs):
            continue
        detections = [r for r in results if r['image_id'] == i]
        detections = sorted(detections, key=lambda r: -r['score'])[:20]
        poses = torch.tensor([r['keypoints'] for r in detections]).view(-1, 17, 3)[..., :2]
        ours = oks(poses[:, None], *people_tensors(scorer._gts[i, 1]))
        assert np.abs(ours.numpy() - theirs).max() < 1e-6
        compared += theirs.size
        unlabeled += sum(a['num_keypoints'] == 0 for a in scorer._gts[i, 1])
    assert compared > 100 and unlabeled > 0


@pytest.mark.parametrize('split, images, people', (('val2017', 23, 46), ('train2017', 61, 143)))
def test_folder(split, images, people, coco_mini):
    folder = CocoFolder(coco_mini, split)
    every = folder.image_ids(annotated=False)
    assert len(every) == images
    assert sum(a['num_keypoints'] > 0 for a in folder.coco.anns.values()) == people
    for i in every:
        assert folder.image_path(i).is_file()
    assert len(folder.image_ids()) < images  # some show nobody


def test_truth_scores_100(coco_mini):
    folder = CocoFolder(coco_mini)
    results = []
    for i in folder.image_ids():
        keypoints, areas, _ = folder.people(i)
        results += coco_results(i, keypoints, np.ones(len(keypoints)))
    for metric, points in average_precision(folder.coco, results).items():
        assert points == pytest.approx(100), metric
