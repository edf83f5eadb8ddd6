"""CrowdPose's annotation layout, on drawn people: the real files were never tried here.

14 keypoints, a crowd index for each image, no areas, COCO's lines, counts without head and neck.
"""

import json
import numpy as np
import pytest
from PIL import Image
from logocap.coco import (
    CROWD_METRICS,
    METRICS,
    CocoFolder,
    average_precision,
    coco_index,
    coco_results,
    crowd_levels,
)
from logocap.people import draw_people
from logocap.skeletons import CROWDPOSE
from logocap.tables import table1_lines

INDICES = (0.0, 0.19, 0.2, 0.79, 0.8, 1.0)
LINES = [[16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 12], [7, 13], [6, 7]]


def crowdpose_person(person, i):
    "A drawn person with CrowdPose's keypoints, and with no more than its files have."
    pose = np.reshape(person['keypoints'], (17, 3))
    head = pose[0] - (0, 12, 0)
    neck = np.append((pose[5, :2] + pose[6, :2]) / 2, min(pose[5, 2], pose[6, 2]))
    points = np.array([*pose[5:], head, neck])
    points[points[:, 2] <= 0] = 0
    return dict(
        id=100 + i,
        image_id=0,
        category_id=1,
        iscrowd=0,
        bbox=person['bbox'],
        keypoints=points.ravel().tolist(),
        num_keypoints=int((points[:12, 2] > 0).sum()),
    )


@pytest.fixture(scope='module')
def crowdpose(tmp_path_factory):
    "crowdpose_val.json and a folder of images, six of them."
    root = tmp_path_factory.mktemp('crowdpose')
    (root / 'images').mkdir()
    images, people = [], []
    for i, index in enumerate(INDICES):
        image, annotations = draw_people(7, i, (160, 128), 0.3)
        name = f'{100000 + i}.jpg'
        Image.fromarray(image).save(root / 'images' / name)
        entry = dict(id=100000 + i, file_name=name, width=160, height=128, crowdIndex=index)
        images.append(entry)
        for a in annotations:
            people.append(dict(crowdpose_person(a, len(people)), image_id=entry['id']))
    category = dict(id=1, name='person', supercategory='person')
    category.update(keypoints=list(CROWDPOSE.names), skeleton=LINES)
    data = dict(images=images, annotations=people, categories=[category])
    (root / 'crowdpose_val.json').write_text(json.dumps(data))
    return root


@pytest.fixture
def folder(crowdpose):
    return CocoFolder(annotations=crowdpose / 'crowdpose_val.json', images=crowdpose / 'images')


def test_reading(crowdpose, folder, capsys):
    assert folder.skeleton is CROWDPOSE
    keypoints, areas, boxes = folder.people(100000)
    assert keypoints.shape[1:] == (14, 3)
    assert areas.tolist() == pytest.approx((0.53 * boxes[:, 2] * boxes[:, 3]).tolist())
    CocoFolder(annotations=crowdpose / 'crowdpose_val.json', images=crowdpose / 'images')
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and 'area (0.53 of the box, as CrowdPose has it) completed' in said


def detections(folder, error=4.0):
    "Everybody, off at random, and somebody who is not there on each image."
    rng, results = np.random.default_rng(0), []
    for i in folder.image_ids():
        poses = folder.people(i)[0].numpy().copy()
        poses[..., :2] += rng.normal(0, error, poses[..., :2].shape)
        poses = np.concatenate([poses, poses[:1] + 60])
        results += coco_results(i, poses, rng.uniform(0.1, 1, len(poses)))
    return results


def test_measures_by_crowd_index(crowdpose, folder):
    """Against pycocotools on the images of each kind, with σ and areas set by hand."""
    from pycocotools.cocoeval import COCOeval

    levels = crowd_levels(folder.coco)
    assert [len(levels[name]) for name in CROWD_METRICS] == [2, 2, 2]
    results = detections(folder)
    points = average_precision(folder.coco, results)

    data = json.loads((crowdpose / 'crowdpose_val.json').read_text())
    for a in data['annotations']:
        a['area'] = a['bbox'][2] * a['bbox'][3] * 0.53
    truth = coco_index(dict(data, info={}))
    limits = {'AP': (0, 2), 'AP easy': (0, 0.2), 'AP medium': (0.2, 0.8), 'AP hard': (0.8, 2)}
    for name, (low, high) in limits.items():
        scorer = COCOeval(truth, truth.loadRes(results), 'keypoints')
        sigmas = (79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89, 79, 79)
        scorer.params.kpt_oks_sigmas = np.array(sigmas) / 1000
        scorer.params.imgIds = [i['id'] for i in data['images'] if low <= i['crowdIndex'] < high]
        scorer.evaluate()
        scorer.accumulate()
        assert points[name] == pytest.approx(100 * scorer.eval['precision'][..., 0, :].mean())
    assert len({round(points[name], 3) for name in limits}) == 4  # they tell each other apart


def test_they_stand_in_table_1():
    row = dict.fromkeys(METRICS, 50.0)
    paper = {'LOGO-CAP': row}
    table = dict(rows=paper, spread={'LOGO-CAP': None}, paper=paper)
    assert [line[0] for line in table1_lines(table)[1:]] == list(METRICS)
    crowded = {'LOGO-CAP': dict(row, **dict.fromkeys(CROWD_METRICS, 40.0))}
    lines = table1_lines(dict(table, rows=crowded))
    assert lines[-1] == ['AP hard', '–', '40.0'] and len(lines) == 9


def test_some_images_without_an_index(crowdpose):
    "Then there is nothing to sort them by."
    data = json.loads((crowdpose / 'crowdpose_val.json').read_text())
    del data['images'][2]['crowdIndex']
    truth = coco_index(data)
    assert crowd_levels(truth) == {}
    assert list(crowd_levels(truth, [100000, 100001])) == list(CROWD_METRICS)


def test_data_command(crowdpose, inside):
    where = ('--annotations', crowdpose / 'crowdpose_val.json', '--images', crowdpose / 'images')
    done = inside('logocap-data', *where)
    assert done.returncode == 0, done.stdout
    assert "person, CrowdPose's 14 keypoints" in done.stdout and 'sound, 6 images' in done.stdout


def test_width_and_height_the_wrong_way_round(crowdpose, tmp_path, inside):
    "As in the first edition of the real files."
    data = json.loads((crowdpose / 'crowdpose_val.json').read_text())
    for image in data['images']:
        image.update(width=image['height'], height=image['width'])
    file = tmp_path / 'crowdpose_train.json'
    file.write_text(json.dumps(data))
    done = inside('logocap-data', '--annotations', file, '--images', crowdpose / 'images')
    assert done.returncode == 1
    assert '6 images of another size than the annotations name' in done.stdout


def test_training_and_table_1(crowdpose, tmp_path, inside):
    "One step, and the table with AP of easy, medium and hard images."
    where = ('--annotations', crowdpose / 'crowdpose_val.json', '--images', crowdpose / 'images')
    short = ('--preset', 'people', '--size', 64, '--batch-size', 2, '--steps', 1)
    done = inside('logocap-train', *where, *short, '--out', tmp_path / 'run', '--device', 'cpu')
    assert done.returncode == 0, done.stderr
    weights = tmp_path / 'run/model.safetensors'
    detection = ('--no-flip-test', '--device', 'cpu', '--out', tmp_path / 'out')
    done = inside('logocap-tables', *where, '--weights', weights, *detection)
    assert done.returncode == 0, done.stderr
    assert ' AP easy |' in done.stdout and ' AP hard |' in done.stdout
    rows = json.loads((tmp_path / 'out/table1.json').read_text())['rows']
    assert set(CROWD_METRICS) <= set(rows['LOGO-CAP']) & set(rows['Emp. Bound'])
    done = inside('logocap-tables', *where, *detection)  # the weights that come along find 17
    noted, fault = done.stderr.splitlines()  # areas that were completed, and what is wrong
    assert done.returncode == 1 and '8 area' in noted and '17 keypoints' in fault
