"""Annotation files from anybody: a clean error that names the place, or a valid data set.

hypothesis makes the mutations, because it makes a failing file small before it shows it.
"""

import copy
import json
import math
import time
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from pycocotools import mask as rle
from conftest import LONG
from logocap.keypoints import example_people
from logocap.coco import CocoFolder, average_precision, coco_results
from logocap.training import ignore_mask

PART = 'annotations'
IDENTITY = np.array([[1.0, 0, 0], [0, 1, 0]])
RUNS = [100, 150, 200, 50, 100]
PACKED = rle.frPyObjects(dict(size=[30, 20], counts=RUNS), 30, 20)['counts'].decode()


def base():
    "Three people, one without labeled keypoints, a crowd as RLE in both forms, an empty image."
    data = example_people()
    data['images'].append(dict(id=2, file_name='folder/empty.png', width=20, height=30))
    nobody = dict(data['annotations'][0], id=4, num_keypoints=0, keypoints=[0] * 51, area=0)
    plain = dict(size=[30, 20], counts=list(RUNS))
    crowd = dict(nobody, id=5, image_id=2, iscrowd=1, segmentation=plain)
    # the same, compressed
    packed = dict(crowd, id=6, segmentation=dict(size=[30, 20], counts=PACKED))
    data['annotations'] += [nobody, crowd, packed]
    return data


def leaves(node, path=()):
    "Every place of a JSON document."
    yield path
    keys = ()
    if isinstance(node, dict):
        keys = node
    elif isinstance(node, list):
        keys = range(len(node))
    for key in keys:
        yield from leaves(node[key], (*path, key))


def places():
    """Every place but the single numbers of lists beyond their first few.

    Those would crowd out everything else.
    """
    found = []
    for path in leaves(base()):
        far_in_a_list = path and isinstance(path[-1], int) and path[-1] >= 5
        if not far_in_a_list or path[-2:-1] == ('annotations',):
            found.append(path)
    return found


@pytest.fixture
def load(tmp_path):
    "load(text or bytes) → the folder that holds them as annotations."
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'val2017').mkdir()

    def load(content):
        if isinstance(content, str):
            content = content.encode('utf-8', 'surrogatepass')
        (tmp_path / 'annotations/person_keypoints_val2017.json').write_bytes(content)
        return CocoFolder(tmp_path)

    return load


def labeled(annotation):
    "Whether it is a person with keypoints, no crowd, however little the file says of that."
    visible = (annotation.get('keypoints') or [])[2::3]
    number = annotation.get('num_keypoints')
    if number is None:
        number = sum(v > 0 for v in visible)
    return bool(visible) and number > 0 and not annotation.get('iscrowd')


def check(folder):
    """A data set that was taken is whole.

    Its people are those of the file, finite, drawn where they must be ignored, and found by
    themselves.
    """
    data = json.loads(folder.annotation_file.read_bytes().decode(errors='replace'))
    people = [a for a in data['annotations'] if labeled(a)]
    results = []
    for image in data['images']:
        meant = [a['keypoints'] for a in people if a['image_id'] == image['id']]
        keypoints, areas, boxes = folder.people(image['id'])
        assert keypoints.isfinite().all() and areas.isfinite().all() and boxes.isfinite().all()
        expected = np.array(meant, np.float32).reshape(-1, 17, 3)
        assert np.array_equal(keypoints.numpy(), expected)
        width, height = image['width'], image['height']
        if width * height < 1e6:
            annotations = folder.coco.imgToAnns[image['id']]
            mask = ignore_mask(annotations, width, height, IDENTITY, (64, 64))
            assert mask.shape == (16, 16)
        results += coco_results(image['id'], keypoints, np.ones(len(keypoints)))
    named = all(any(v > 0 for v in a['keypoints'][2::3]) for a in people)
    points = average_precision(folder.coco, results)['AP']
    assert points == -100 or points > 99.9 or not named, points


def tries(load, content, tried, what):
    start, outcome = time.process_time(), 'a valid data set'
    try:
        folder = load(content)
    except ValueError as e:
        assert 'person_keypoints_val2017.json: ' in str(e), e
        assert '\n' not in str(e), e
        assert len(str(e)) < 600, e
        outcome = 'one line'
    assert time.process_time() - start < 10
    if outcome != 'one line':
        check(folder)
    tried(PART, what, 1, outcome)


WEIRD = (
    None,
    True,
    False,
    -1,
    0,
    1,
    2,
    17,
    18,
    3.5,
    -1e-300,
    1e-300,
    math.nan,
    math.inf,
    -math.inf,
    1e39,
    10**30,
    2**63,
    '',
    'x',
    '1',
    '../x.png',
    '/etc/passwd',
    '\\\\server\\x',
    'C:\\x',
    'a/../../x',
    '\0',
    '\ud800',
    [],
    {},
    [[]],
    [1],
    [math.nan] * 51,
    [0] * 50,
    [0] * 52,
    [1, 2, 3] * 17,
    [1, 2, 7] * 17,
    [0, 0, 0, 0],
    [1, 2, -3, 4],
    [[1, 2]],
    [[1, 2, 3, 4]],
    [[0, 0, 9, 0, 9]],
    [[0, 0, 1e9, 0, 9, 9]],
    [[0, 0, 9, 0, 9, 9]],
    dict(size=[30, 20], counts=[600]),
    dict(size=[30, 20], counts=[601]),
    dict(size=[30, 20], counts=[-1, 601]),
    dict(size=[20, 30], counts=[600]),
    dict(size=[30, 20], counts=PACKED * 2),
    dict(size=[30, 20], counts='oooooooooo'),
    dict(size=[30, 20], counts='\x7f'),
    dict(counts=5),
)
ONE = st.tuples(
    st.sampled_from(places()),
    st.one_of(
        st.sampled_from(WEIRD).map(lambda v: ('set', v)),
        st.sampled_from(('delete', 'double', 'swap')).map(lambda w: (w, None)),
        st.one_of(
            st.integers(),
            st.floats(),
            st.text(max_size=9),
            st.lists(st.floats(allow_nan=True), max_size=60),
        ).map(lambda v: ('set', v)),
    ),
)


def mutated(changes):
    data = base()
    for path, (what, value) in changes:
        node = data
        try:
            for key in path[:-1]:
                node = node[key]
            if not path:
                data = copy.deepcopy(value) if what == 'set' else data
            elif what == 'set':
                node[path[-1]] = copy.deepcopy(value)
            elif what == 'delete':
                del node[path[-1]]
            elif what == 'double' and isinstance(node, list):
                node.append(copy.deepcopy(node[path[-1]]))
            elif what == 'swap':
                node[path[-1]], node[path[-1] - 1] = node[path[-1] - 1], node[path[-1]]
        except (KeyError, IndexError, TypeError, AttributeError):
            pass  # an earlier change has taken the place away
    return data


quiet = dict(deadline=None, derandomize=True, database=None)
quiet['suppress_health_check'] = list(HealthCheck)


def test_what_is_valid(load, tried):
    folder = load(json.dumps(base()))
    check(folder)
    a, b = (folder.coco.anns[n]['segmentation'] for n in (5, 6))
    # the compressed crowd is the plain one
    assert np.array_equal(rle.decode(rle.frPyObjects(a, 30, 20)), rle.decode(b))
    assert rle.area(b) == 150 + 50
    empty = base()
    empty['annotations'], empty['images'] = [], []
    assert load(json.dumps(empty)).image_ids() == []
    tried(
        PART,
        'what COCO contains: no keypoints, area 0, crowds as RLE in both forms, nothing at all',
        2,
        'a valid data set',
    )


def test_mutated_values(load, tried):
    @settings(max_examples=16000 if LONG else 250, **quiet)
    @given(st.lists(ONE, min_size=1, max_size=3))
    def mutate(changes):
        tries(load, json.dumps(mutated(changes)), tried, 'files with one to three mutated values')

    mutate()


def test_mutated_text(load, tried):
    text = json.dumps(base()).encode()

    @settings(max_examples=5000 if LONG else 100, **quiet)
    @given(
        st.lists(st.tuples(st.integers(0, len(text) - 1), st.integers(0, 255)), max_size=4),
        st.one_of(st.none(), st.integers(0, len(text))),
    )
    def mutate(flips, end):
        content = bytearray(text)
        for at, byte in flips:
            content[at] = byte
        tries(load, bytes(content[:end]), tried, 'files with flipped bytes or cut off')

    mutate()


@pytest.mark.parametrize(
    'part, n, change, fault',
    (
        (
            'images',
            1,
            dict(file_name='../x.png'),
            "images[1].file_name is '../x.png': expected a file name that stays in the folder",
        ),
        ('images', 1, dict(file_name='/etc/passwd'), 'images[1].file_name'),
        ('images', 1, dict(file_name='a\\..\\..\\x.png'), 'images[1].file_name'),
        ('images', 0, dict(width=0), 'images[0].width is 0: Expected `int` >= 1'),
        ('annotations', 2, dict(keypoints=[0] * 50), 'annotations[2].keypoints'),
        ('annotations', 2, dict(keypoints=[0, 0, math.nan] * 17), "at 'NaN"),
        ('annotations', 2, dict(bbox=[0, 0, math.inf, 1]), "at 'Infinity"),
        ('annotations', 2, dict(area=-1), 'annotations[2].area is -1'),
        ('annotations', 2, dict(area=0), 'annotations[2] has labeled keypoints, but an area'),
        ('annotations', 2, dict(id=1), 'annotations[2] has the id 1, which another has'),
        ('annotations', 2, dict(category_id=2), 'annotations[2] names category 2'),
        ('annotations', 2, dict(image_id=77), 'annotations[2] names image 77'),
        (
            'annotations',
            4,
            dict(segmentation=dict(size=[30, 20], counts=[9])),
            'annotations[4].segmentation',
        ),
        (
            'categories',
            0,
            dict(name='cat', keypoints=[]),
            'none of its categories is called person',
        ),
    ),
)
def test_faults_are_named(load, part, n, change, fault, tried):
    data = base()
    data[part][n].update(change)
    with pytest.raises(ValueError) as e:
        load(json.dumps(data))
    assert fault in str(e.value)
    tried(PART, 'single faults', 1, 'named by part, index and field')


@pytest.mark.parametrize(
    'content, fault',
    (
        (b'', 'not a JSON file'),
        (b'[' * 100000, 'Expected `object`, got `array`'),
        (b'\xff\xfe{}', 'not a JSON file'),
        (b'[]', 'Expected `object`, got `array`'),
        (b'{}', 'missing required field `images`'),
        (b'{"images": [' + b'9' * 5000 + b']}', 'out of range'),
    ),
)
def test_no_annotations_at_all(load, content, fault, tried):
    with pytest.raises(ValueError, match='person_keypoints_val2017.json: ') as e:
        load(content)
    assert fault in str(e.value)
    tried(PART, 'files that are something else', 1, 'one line')


def test_links(load, tmp_path, tried):
    """Links within the folder are followed, those that lead out of it are not.

    The folder itself may be a link.
    """
    folder = load(json.dumps(base()))
    (tmp_path / 'secret').write_text('secret')
    (tmp_path / 'val2017/there.png').write_text('a picture')
    (tmp_path / 'val2017/blank.png').symlink_to(tmp_path / 'val2017/there.png')
    assert folder.image_path(1).read_text() == 'a picture'
    for target in (tmp_path / 'secret', '../secret', '/etc/passwd', tmp_path / 'val2017/blank.png'):
        (tmp_path / 'val2017/blank.png').unlink()
        (tmp_path / 'val2017/blank.png').symlink_to(target)
        with pytest.raises((ValueError, FileNotFoundError)) as e:
            folder.image_path(1)
        assert 'blank.png' in str(e.value)
        tried(PART, 'links out of the folder and in a circle', 1, 'named, not followed')
    (tmp_path / 'val2017').rename(tmp_path / 'elsewhere')
    (tmp_path / 'val2017').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere/blank.png').unlink()
    (tmp_path / 'elsewhere/blank.png').write_text('a picture')
    assert folder.image_path(1).read_text() == 'a picture'
