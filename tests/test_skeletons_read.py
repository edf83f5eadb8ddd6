"What an annotation file's category says of its keypoints: read, or refused in one line."

import pytest
from logocap.keypoints import KEYPOINTS, PERSON
from logocap.skeletons import (
    CROWDPOSE,
    SIGMA,
    category_skeleton,
    describe_skeleton,
    mirror_of_names,
    skeleton_notes,
)

FOUR = dict(name='beetle', keypoints=['head', 'left_feeler', 'right_feeler', 'tail'])


def test_all_that_a_category_says():
    category = dict(
        FOUR,
        skeleton=[[1, 2], [1, 3], ['head', 'tail']],
        flip_pairs=[[2, 3]],
        sigmas=[0.05, 0.05, 0.05, 1],
    )
    skeleton = category_skeleton(category)
    assert skeleton.names == tuple(FOUR['keypoints']) and skeleton.name == 'beetle'
    assert skeleton.lines == ((0, 1), (0, 2), (0, 3))
    assert skeleton.flip == (0, 2, 1, 3) and skeleton.sigmas == (0.05, 0.05, 0.05, 1)
    assert len(skeleton) == 4 and skeleton_notes(category) == []
    assert describe_skeleton(category) == (
        'beetle, 4 keypoints, 3 lines, 1 mirrored pairs by flip_pairs, σ: sigmas'
    )


def test_what_is_assumed():
    skeleton = category_skeleton(FOUR)
    assert skeleton.lines == () and skeleton.flip == (0, 2, 1, 3)
    assert skeleton.sigmas == (SIGMA,) * 4
    assert skeleton_notes(FOUR) == ['σ of 0.067 for all 4 keypoints (no sigmas)']
    corners = dict(name='plate', keypoints=['a', 'b'], sigmas=[0.1, 0.1])
    assert 'its own mirror image' in skeleton_notes(corners)[0]
    assert skeleton_notes(dict(corners, flip_pairs=[])) == []  # said in so many words


@pytest.mark.parametrize(
    'names, flip',
    (
        (('nose', 'LeftEye', 'RightEye'), (0, 2, 1)),
        (('L_F_Paw', 'R_F_Paw', 'L_B_Paw', 'R_B_Paw'), (1, 0, 3, 2)),
        (('x_left', 'y_left', 'y_right', 'x_right'), (3, 2, 1, 0)),
        (('LElbow', 'RElbow', 'LHip'), (1, 0, 2)),
        (('leftear', 'rightear', 'bright', 'leftover'), (1, 0, 2, 3)),
        (('left', 'right', 'l', 'r'), (1, 0, 2, 3)),
        (('Auge links', '口', '2'), (0, 1, 2)),
        (('leg l 1', 'leg l 2', 'leg r 1', 'leg r 2'), (2, 3, 0, 1)),
    ),
)
def test_mirrors_told_by_names(names, flip):
    assert mirror_of_names(names) == flip


@pytest.mark.parametrize(
    'change, fault',
    (
        (dict(keypoints=[]), 'names no keypoints'),
        (dict(keypoints=['a', 'b', 'a']), "names the keypoint 'a' twice"),
        (dict(keypoints=['a', ' ']), "keypoints[1] is ' ': expected a name"),
        (dict(keypoints=['a', 5]), 'keypoints[1] is 5: expected a name'),
        (dict(skeleton=[[0, 1]]), 'skeleton[0]: 0 is no keypoint: expected a name, or a number'),
        (dict(skeleton=[[1, 5]]), 'skeleton[0]: 5 is no keypoint'),
        (dict(skeleton=[[1, 2], [1.5, 2]]), 'skeleton[1]: 1.5 is no keypoint'),
        (dict(skeleton=[[1, True]]), 'skeleton[0]: True is no keypoint'),
        (dict(skeleton=[[1, 2, 3]]), 'skeleton[0] is [1, 2, 3]: expected two keypoints'),
        (dict(skeleton='1-2'), "skeleton is '1-2': expected pairs of keypoints"),
        (dict(flip_pairs=[['head', 'foot']]), "flip_pairs[0]: 'foot' is no keypoint"),
        (dict(flip_pairs=[[2, 3], [3, 4]]), "pairs 'right_feeler' once more"),
        (dict(flip_pairs=[[1, 2]]), "not with 'right_feeler' (keypoints are counted from 1)"),
        (dict(sigmas=[0.1]), 'has 1 sigmas for 4 keypoints'),
        (dict(sigmas=[0.1, 0, 0.1, 0.1]), 'sigmas[1] is 0: expected 0.0001 to 1'),
        (dict(sigmas=[0.1, 0.1, float('nan'), 0.1]), 'sigmas[2] is nan'),
        (dict(sigmas=[0.79, 0.79, 1.07, 0.79]), 'sigmas[2] is 1.07'),
        (dict(keypoints=['l_ear', 'L ear', 'r_ear']), 'name the pairs under flip_pairs'),
        (dict(keypoints=KEYPOINTS[::-1]), "are COCO's 17, but not in COCO's order"),
    ),
)
def test_faults(change, fault):
    with pytest.raises(ValueError) as e:
        category_skeleton(dict(FOUR, **change), 'beetles.json')
    assert str(e.value).startswith("beetles.json: category 'beetle': ") and fault in str(e.value)
    assert '\n' not in str(e.value) and len(str(e.value)) < 400


def test_people_of_coco():
    "Whatever the lines say, and however the names are spelled; merely numbered ones too."
    titles = [name.replace('_', ' ').title() for name in KEYPOINTS]
    for names in (KEYPOINTS, titles):
        assert category_skeleton(dict(keypoints=names, skeleton=[[1, 99]])) is PERSON
    numbered = dict(name='worker', keypoints=[f'kp {n}' for n in range(17)])
    assert category_skeleton(numbered) is PERSON
    assert skeleton_notes(numbered) == ["17 numbered keypoints taken for COCO's"]
    assert category_skeleton(dict(numbered, flip_pairs=[[1, 2]])).name == 'worker'
    assert category_skeleton(dict(name='Person')) is PERSON
    part = category_skeleton(dict(keypoints=KEYPOINTS[:5]))
    assert len(part) == 5 and part.flip == PERSON.flip[:5]


def test_people_of_crowdpose():
    "Known by their names; the lines of its files are COCO's and lead nowhere."
    for head in ('head', 'top_head'):
        names = [*CROWDPOSE.names[:12], head, 'neck']
        category = dict(name='person', keypoints=names, skeleton=[[16, 14], [17, 15]])
        assert category_skeleton(category) is CROWDPOSE and skeleton_notes(category) == []
    assert all(a < 14 and b < 14 for a, b in CROWDPOSE.lines)
    assert CROWDPOSE.flip == mirror_of_names(CROWDPOSE.names)
