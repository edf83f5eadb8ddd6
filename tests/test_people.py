"Drawn people over many images, and the painting of solids against slow versions of the same."

import json
from pathlib import Path
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from logocap.coco import CocoFolder
from logocap.people import Canvas, Solids, draw_people, paint, rle, rotation, write_split


def painted(*solids):
    page = Canvas(81, 61, 100.0, (0, 0, -1))
    for s in solids:
        paint(page, s)
    return page


@pytest.fixture
def rod():
    rod = Solids()
    rod.rod((-0.8, -0.4, 5), (0.9, 0.5, 5), 0.3, 0.3, 1, 2, 0.5)
    return rod


def test_rod_is_many_balls(rod):
    many = Solids()
    for t in np.linspace(0, 1, 2000):
        center = np.array((-0.8, -0.4, 5)) + t * np.array((1.7, 0.9, 0))
        many.ball(center, np.eye(3), (0.3,) * 3, 1 if t < 0.5 else 2)
    fast, slow = painted(rod), painted(many)
    inside = np.isfinite(fast.depth)
    assert np.array_equal(inside, np.isfinite(slow.depth))
    assert np.abs(fast.depth[inside] - slow.depth[inside]).max() < 1e-3


def test_order_of_painting_does_not_matter(rod):
    ball = Solids()
    ball.ball((0.1, -0.2, 5), rotation(20, 30, 40), (0.9, 0.5, 0.3), 7)
    assert np.array_equal(painted(rod, ball).material, painted(ball, rod).material)
    assert set(np.unique(painted(rod, ball).material)) == {0, 1, 2, 7}


@pytest.mark.parametrize(
    'mask',
    (
        np.random.default_rng(0).random((31, 47)) > 0.5,
        np.ones((5, 4), bool),
        np.zeros((5, 4), bool),
        np.tri(300, 200, dtype=bool),
    ),
    ids=('random', 'full', 'empty', 'triangle'),
)
def test_run_lengths(mask):
    code = json.loads(json.dumps(rle(mask)))  # as a file would hold it
    assert code['size'] == list(mask.shape)
    assert np.array_equal(coco_mask.decode(code).astype(bool), mask)


KINDS = ((0.0, False), (0.5, False), (1.0, False), (1.0, True))


@pytest.mark.parametrize('difficulty, occluded', KINDS)
def test_annotations(difficulty, occluded):
    for index in range(12):
        image, people = draw_people(7, index, (256, 320), difficulty, occluded)
        assert image.shape == (320, 256, 3) and image.dtype == np.uint8
        assert people and (difficulty or len(people) <= 3)
        assert json.loads(json.dumps(people)) == people
        for p in people:
            x, y, v = np.reshape(p['keypoints'], (17, 3)).T
            assert set(v) <= {0, 1, 2}
            assert (x[v == 0] == 0).all() and (y[v == 0] == 0).all()
            assert (x >= 0).all() and (y >= 0).all() and (x <= 255).all() and (y <= 319).all()
            assert p['num_keypoints'] == (v > 0).sum()
            assert p['area'] == int(coco_mask.area(p['segmentation']))
            assert p['bbox'] == coco_mask.toBbox(p['segmentation']).tolist()
        if not occluded:
            continue
        boxes = np.array([p['bbox'] for p in people], float)
        iou = coco_mask.iou(boxes, boxes, [0] * len(boxes)) - np.eye(len(boxes))
        assert (iou.max(1) > 0.5).all()


def test_negative_seed():
    with pytest.raises(ValueError):
        draw_people(-1, 0)


def test_written_split(tmp_path):
    for _ in range(2):
        write_split(tmp_path, 'some', 4, 5)  # writing again replaces
    written = CocoFolder(tmp_path, 'some')
    assert written.image_ids() == list(range(4))
    expected = dict(id=1, file_name='000000000001.jpg', width=256, height=320)
    assert written.coco.loadImgs([1])[0] == expected
    assert not list(Path(tmp_path).glob('**/*.part'))
    for i, size in enumerate(((256, 256), (256, 320))):
        image, people = draw_people(5, i, size)
        stored = np.asarray(Image.open(written.image_path(i))).astype(float)
        assert np.abs(stored - image).mean() < 12  # JPEG is a little off, the annotations are not
        annotations = written.coco.imgToAnns[i]
        for a, p in zip(annotations, people, strict=True):
            assert {**p, 'id': a['id'], 'image_id': i} == a
        assert written.coco.annToMask(annotations[0]).sum() == people[0]['area']
