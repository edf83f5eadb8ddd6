"Scores and folders on real annotations."
import numpy as np
import pytest
import torch
from logocap.coco import CocoFolder, average_precision, coco_results, oks, people_tensors


@pytest.mark.parametrize('split', ('val2017', 'train2017'))
def test_oks_equals_pycocotools(split, coco_mini):
    from pycocotools.cocoeval import COCOeval
    folder, rng = CocoFolder(coco_mini, split), np.random.default_rng(0)
    results, compared, unlabelled = [], 0, 0
    for i in folder.image_ids(annotated=False):
        truth, _, _ = people_tensors(folder.coco.imgToAnns[i])
        poses = np.concatenate([truth[..., :2].numpy() + rng.normal(0, 12, (len(truth), 17, 2)), rng.uniform(0, 600, (2, 17, 2))])
        results += coco_results(i, np.concatenate([poses, np.ones((len(poses), 17, 1))], -1), rng.permutation(np.linspace(.1, .9, len(poses))))
    scorer = COCOeval(folder.coco, folder.coco.loadRes(results), 'keypoints')
    scorer._prepare()
    for i in folder.image_ids(annotated=False):
        theirs = scorer.computeOks(i, 1)
        if not len(theirs): continue
        detections = sorted((r for r in results if r['image_id'] == i), key=lambda r: -r['score'])[:20]
        poses = torch.tensor([r['keypoints'] for r in detections]).view(-1, 17, 3)[..., :2]
        ours = oks(poses[:, None], *people_tensors(scorer._gts[i, 1]))
        assert np.abs(ours.numpy() - theirs).max() < 1e-6
        compared += theirs.size
        unlabelled += sum(a['num_keypoints'] == 0 for a in scorer._gts[i, 1])
    assert compared > 100 and unlabelled > 0


@pytest.mark.parametrize('split, images, people', (('val2017', 23, 46), ('train2017', 61, 143)))
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
    for metric, points in average_precision(folder.coco, results).items(): assert points == pytest.approx(100), metric
