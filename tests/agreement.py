"""What two computations of the same people must agree in, whatever the rounding.

Processors, threads, batch sizes and exported programs add in another order. In float32 that
changes maps by about 1e-5 of their highest value, and every value that is read off them by as
little: scores are compared as they are. A *place* is that of a highest cell, and jumps where two
cells are equal within rounding. Such a tie is expected of one keypoint in a hundred: of a peak of
σ = 8 px the two best cells differ by less than 2·1e-5 where its top lies within 2·1e-5·σ² =
.0013 px of halfway between them, which has a chance of .26 % along each axis; the same again for
the second and the third cell, which also count (Eq. 10).
"""

import contextlib
import io
import numpy as np
from pycocotools.cocoeval import COCOeval
from logocap.keypoints import SIGMAS
from logocap.lab.export import partners

ROUNDING = 1e-4  # of the highest value: ten times what the layers of the network add up to
TIES = 0.01  # of all keypoints
CELL = 1.0  # px of the network's input, of the maps that places are read off


def ties_allowed(keypoints):
    "The expected number and three standard deviations: about one set in a thousand has more."
    return TIES * keypoints + 3 * (TIES * keypoints) ** 0.5


def same_centers(ours, theirs):
    "Positions, in two lists N×3, of candidates above 0 in one place, x and y in whole px."
    places = {tuple(c[:2]): n for n, c in enumerate(theirs) if c[2] > 0}
    found = [(n, places.get(tuple(c[:2]))) for n, c in enumerate(ours) if c[2] > 0]
    pairs = [(n, other) for n, other in found if other is not None]
    return np.array(pairs, int).reshape(-1, 2).T


def same_people(ours, theirs, distance=0.01):
    """Asserts it of two lists of keypoints P×17×3 and scores P, one pair for each image.

    One to one, in any order; scores equal within ROUNDING; each keypoint within `distance`, px, but
    for ties: as high within ROUNDING, in another place, no more of them than `ties_allowed`.
    A center is a highest cell, too, and at the border, where upsampling repeats values, rounding
    decides whether it counts. One that does costs two people their partners: itself, and the last
    of the 30 candidates whose place it takes, or one whom it suppresses.
    """
    ties = keypoints = alone = people = 0
    for (p, s), (q, t) in zip(ours, theirs, strict=True):
        i, j = partners(p, q).T
        people += max(len(p), len(q))
        alone += max(len(p), len(q)) - len(i)
        if not len(i):
            continue
        assert np.abs(s[i] - t[j]).max() < ROUNDING * t.max()
        assert np.abs(p[i] - q[j])[..., 2].max() < ROUNDING * q[..., 2].max()
        ties += (np.linalg.norm((p[i] - q[j])[..., :2], axis=-1) >= distance).sum()
        keypoints += 17 * len(i)
    assert keypoints and ties <= ties_allowed(keypoints), (ties, keypoints)
    assert alone <= 2 * ties_allowed(people), (alone, people)


def oks_changes(coco, ids, short_side, pixels=CELL, everywhere=False):
    """How much each labeled person's OKS may change.

    One keypoint moves, or each in a direction of its own.

    A keypoint's similarity exp(−x²/2), x = distance / 2σs, is nowhere steeper than exp(−½); the OKS
    is the mean over labeled keypoints, where independent changes add up as their squares do.
    `pixels` are those of the network's input.
    """
    changes = []
    for image in coco.loadImgs(ids):
        scale = min(image['width'], image['height']) / short_side if short_side else 1
        for person in coco.imgToAnns[image['id']]:
            labeled = np.array(person['keypoints'])[2::3] > 0
            if person['iscrowd'] or not labeled.any():
                continue
            size = 2 * SIGMAS.numpy()[labeled] * person['area'] ** 0.5
            each = np.minimum(np.exp(-0.5) * pixels * scale / size, 1)
            changes.append((np.sqrt((each**2).sum()) if everywhere else each.max()) / labeled.sum())
    return np.array(changes)


def ap_range(coco, results, ids, change):
    """Lowest and highest AP if each person's OKS changes by up to `change`.

    That is what COCO's thresholds give, all moved by as much.
    """
    found = []
    for shift in (change, -change):
        with contextlib.redirect_stdout(io.StringIO()):
            e = COCOeval(coco, coco.loadRes([dict(r) for r in results]), 'keypoints')
            e.params.imgIds, e.params.iouThrs = list(ids), e.params.iouThrs + shift
            e.evaluate()
            e.accumulate()
        precision = e.eval['precision'][:, :, 0, :, 0]  # thresholds × recalls × areas
        found.append(100 * precision[..., 0].mean())
    return found


def ap_scatter(coco, results, ids, changes):
    """Four standard deviations of AP if the people's OKS change independently, by up to `changes`.

    The width of `ap_range` is that of K pairs of a person and one of COCO's ten thresholds in
    reach, each worth 10/N points. Each is crossed or not: a standard deviation of at most a half,
    together √K · 5/N.
    """
    least, most = ap_range(coco, results, ids, np.median(changes))
    worth = 10 / len(changes)
    pairs = (most - least) / worth
    return 4 * pairs**0.5 * worth / 2
