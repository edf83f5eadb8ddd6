"Targets and losses against the values recorded from the released implementation (../shared/parity/training.npz)."
import json
from pathlib import Path
import numpy as np
import pytest
import torch
from logocap.coco import people_tensors, transform_points
from logocap.losses import FACTORS, ignore_mask, make_targets, pad_people, total_loss, training_stages
from logocap.model import LogoCap

PARITY = Path(__file__).resolve().parent.parent.parent/'shared'/'parity'
pytestmark = pytest.mark.skipif(not (PARITY/'training.npz').is_file(), reason='../shared/parity is not here')


@pytest.fixture(scope='module')
def recorded():
    with np.load(PARITY/'training.npz') as f: return {name: torch.as_tensor(f[name]) for name in f.files}


@pytest.fixture(scope='module')
def targets(recorded):
    "Our targets of the recorded pictures, from their annotations."
    dataset = json.loads((PARITY/'coco/annotations/person_keypoints_val2017.json').read_text())
    matrices, size = recorded['transform'][:, :2], recorded['input'].shape[-2:]
    people, areas, ignore = [], [], []
    for image_id, matrix in zip(recorded['image_ids'].tolist(), matrices):
        image = next(i for i in dataset['images'] if i['id'] == image_id)
        annotations = [a for a in dataset['annotations'] if a['image_id'] == image_id]
        keypoints, area, _ = people_tensors([a for a in annotations if a['num_keypoints'] > 0 and not a['iscrowd']])
        keypoints[..., :2] = transform_points(keypoints[..., :2], matrix)
        people.append(keypoints)
        areas.append(area * matrix[0, 0]**2)
        ignore.append(ignore_mask(annotations, image['width'], image['height'], matrix, size))
    return make_targets(*pad_people(people, areas), torch.stack(ignore), size, scales=matrices[:, 0, 0])


@pytest.fixture(scope='module')
def stages(recorded):
    "The trained stages of the recorded pictures, batch norms in evaluation mode."
    model = LogoCap.from_pretrained(PARITY/'w8.pth.tar')
    with torch.no_grad(): return training_stages(*model.fields(recorded['input']), model.cmp, recorded['input'].shape[-2:])


@pytest.mark.parametrize('ours, theirs, tolerance', [
    ('heatmaps', 'heatmap_target', 5e-6), ('heatmap_weight', 'heatmap_weight', 0),
    ('offsets', 'offset_target', 2e-5), ('offset_weight', 'offset_weight', 1e-8)])
def test_targets(recorded, targets, ours, theirs, tolerance):
    assert targets[ours].shape == recorded[theirs].shape
    assert torch.equal(targets[ours] > 0, recorded[theirs] > 0) or ours == 'offsets'
    torch.testing.assert_close(targets[ours], recorded[theirs], rtol=0, atol=tolerance)


def test_losses(recorded, targets, stages):
    losses = total_loss(stages, targets)
    for name in FACTORS: assert losses[name].item() == pytest.approx(recorded[f'loss_{name}'].item(), rel=1e-5), name
    assert losses['total'].item() == pytest.approx(sum(recorded[f'loss_{name}'].item() for name in FACTORS), rel=1e-5)
    assert losses['matched'] == 5  # the sole person of each picture by its centre, one of them by two more instances


def test_details_matter(recorded, targets, stages):
    "Each detail found out is one that the recorded numbers can tell: without it a loss is off by far more than rounding."
    off = lambda **change: {name: total_loss(dict(stages, **change), targets)[name].item() / recorded[f'loss_{name}'].item() - 1 for name in FACTORS}
    clamped = off(kam=stages['kam'].clamp(0, 1))
    assert abs(clamped['kam']) > 1e-2 and abs(clamped['adapted']) > 1e-4
    paper = total_loss(stages, targets, 'paper')
    assert abs(paper['heatmaps'].item() / recorded['loss_heatmaps'].item() - 1) > 1e-2


def test_one_picture_at_a_time(recorded, targets, stages):
    "The heat map loss of a batch is the mean of its pictures'; the last two are means over the batch's instances."
    single = [total_loss({k: v[i:i + 1] for k, v in stages.items()}, {k: v[i:i + 1] for k, v in targets.items()}) for i in range(3)]
    batch, matched = total_loss(stages, targets), torch.stack([s['matched'] for s in single])
    assert batch['heatmaps'].item() == pytest.approx(sum(s['heatmaps'].item() for s in single) / 3, rel=1e-5)
    for name in ('kam', 'adapted'):
        mean = sum(s[name].item() * n.item() for s, n in zip(single, matched)) / matched.sum().item()
        assert batch[name].item() == pytest.approx(mean, rel=1e-5)
