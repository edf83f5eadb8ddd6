"Targets and losses against values recorded from the released implementation (../shared/parity)."

import json
from pathlib import Path
import numpy as np
import pytest
import torch
from logocap.keypoints import people_tensors
from logocap.images import transform_points
from logocap.coco import CocoFolder
from logocap.losses import FACTORS, make_targets, pad_people, total_loss, training_stages
from logocap.training import ignore_mask
from logocap.model import LogoCap
from logocap.training import PRESETS, CocoSamples, collate

SHARED = Path(__file__).resolve().parent.parent.parent / 'shared'
PARITY = SHARED / 'parity'
pytestmark = pytest.mark.skipif(
    not (PARITY / 'training.npz').is_file(), reason='../shared/parity is not here'
)


def arrays(name):
    with np.load(PARITY / name) as f:
        return {name: torch.as_tensor(f[name]) for name in f.files}


@pytest.fixture(scope='module')
def recorded():
    return arrays('training.npz')


@pytest.fixture(scope='module')
def targets(recorded):
    "Our targets of the recorded images, from their annotations."
    dataset = json.loads((PARITY / 'coco/annotations/person_keypoints_val2017.json').read_text())
    matrices, size = recorded['transform'][:, :2], recorded['input'].shape[-2:]
    people, areas, ignore = [], [], []
    for image_id, matrix in zip(recorded['image_ids'].tolist(), matrices):
        image = next(i for i in dataset['images'] if i['id'] == image_id)
        annotations = [a for a in dataset['annotations'] if a['image_id'] == image_id]
        keypoints, area, _ = people_tensors(
            [a for a in annotations if a['num_keypoints'] > 0 and not a['iscrowd']]
        )
        keypoints[..., :2] = transform_points(keypoints[..., :2], matrix)
        people.append(keypoints)
        areas.append(area * matrix[0, 0] ** 2)
        ignore.append(ignore_mask(annotations, image['width'], image['height'], matrix, size))
    return make_targets(
        *pad_people(people, areas), torch.stack(ignore), size, scales=matrices[:, 0, 0]
    )


def stages_of(images, targets, variant='released'):
    "The trained stages of a batch, batch norms in evaluation mode."
    model = LogoCap.from_pretrained(PARITY / 'w8.pth.tar')
    with torch.no_grad():
        maps = model.fields(images)
        return training_stages(*maps, model.cmp, images.shape[-2:], targets, variant=variant)


@pytest.fixture(scope='module')
def stages(recorded, targets):
    return stages_of(recorded['input'], targets)


@pytest.mark.parametrize(
    'ours, theirs, tolerance',
    [
        ('heatmaps', 'heatmap_target', 5e-6),
        ('heatmap_weight', 'heatmap_weight', 0),
        ('offsets', 'offset_target', 2e-5),
        ('offset_weight', 'offset_weight', 1e-8),
    ],
)
def test_targets(recorded, targets, ours, theirs, tolerance):
    assert targets[ours].shape == recorded[theirs].shape
    assert torch.equal(targets[ours] > 0, recorded[theirs] > 0) or ours == 'offsets'
    torch.testing.assert_close(targets[ours], recorded[theirs], rtol=0, atol=tolerance)


def test_losses(recorded, targets, stages):
    losses = total_loss(stages, targets)
    for name in FACTORS:
        assert losses[name].item() == pytest.approx(recorded[f'loss_{name}'].item(), rel=1e-5), name
    assert losses['total'].item() == pytest.approx(
        sum(recorded[f'loss_{name}'].item() for name in FACTORS), rel=1e-5
    )
    # the sole person of each image by its center, one of them by two more instances
    assert losses['matched'] == 5


def test_details_matter(recorded, targets, stages):
    """Each detail found out is one that the recorded numbers can tell: without it a loss is off by
    far more than rounding."""
    clamped = total_loss(dict(stages, kam=stages['kam'].clamp(0, 1)), targets)
    assert abs(clamped['kam'].item() / recorded['loss_kam'].item() - 1) > 1e-2
    paper = total_loss(stages, targets, 'paper')
    assert abs(paper['heatmaps'].item() / recorded['loss_heatmaps'].item() - 1) > 1e-2


def test_one_image_at_a_time(recorded, targets, stages):
    """The heatmap loss of a batch is the mean of its images'; the last two are means over the
    batch's instances."""
    single = []
    for i in range(3):
        own = {k: v[i : i + 1] for k, v in targets.items()}
        single.append(total_loss(stages_of(recorded['input'][i : i + 1], own), own))
    batch, matched = total_loss(stages, targets), torch.stack([s['matched'] for s in single])
    assert batch['heatmaps'].item() == pytest.approx(
        sum(s['heatmaps'].item() for s in single) / 3, rel=1e-5
    )
    for name in ('kam', 'adapted'):
        mean = (
            sum(s[name].item() * n.item() for s, n in zip(single, matched)) / matched.sum().item()
        )
        assert batch[name].item() == pytest.approx(mean, rel=1e-5)


def augmented_sample(image_id, transform, mirrored):
    "Our sample of a training image under a recorded transform."
    samples = CocoSamples(CocoFolder(SHARED / 'coco-mini', 'train2017'), PRESETS['paper_w32'])
    samples.recipe.size = 256
    return samples.sample(image_id, transform[:2].numpy(), bool(mirrored))


def augmented_targets(samples):
    batch = collate(samples)
    return make_targets(
        batch['people'],
        batch['areas'],
        batch['valid'],
        batch['ignore'],
        (256, 256),
        scales=batch['scales'],
        centers=batch['centers'],
    )


def released_offsets(sample, areas, source_areas):
    """Offsets, weights and number of writers of every entry, cell by cell as released.

    A cell remembers the area of whoever wrote into it last, in float32, and an entry that
    somebody has written is left alone where that is less than the area of the person at hand, in
    float64. A person's second keypoint meets the area that the first one left, so that rounding
    decides whether it may replace what a larger person wrote before.
    """
    offsets, weight, writers = (
        np.zeros((34, 64, 64)),
        np.zeros((34, 64, 64)),
        np.zeros((34, 64, 64), int),
    )
    last = np.zeros((64, 64), np.float32)

    def outside(x, y):
        return x < 0 or y < 0 or x >= 64 or y >= 64

    for people, center, area, source in zip(
        sample['people'].numpy(), sample['centers'].numpy() / 4, areas, source_areas
    ):
        if source < 32**2 or outside(*center):
            continue
        rows = range(max(0, int(center[1]) - 4), min(64, int(center[1]) + 4))
        columns = range(max(0, int(center[0]) - 4), min(64, int(center[0]) + 4))
        for k, (x, y, v) in enumerate(people / np.array([4, 4, 1])):
            if v == 0 or outside(x, y):
                continue
            for j in rows:
                for i in columns:
                    writers[2 * k : 2 * k + 2, j, i] += 1
                    if weight[2 * k, j, i] and float(last[j, i]) < area:
                        continue
                    offsets[2 * k : 2 * k + 2, j, i] = i - x, j - y
                    weight[2 * k : 2 * k + 2, j, i] = area**-0.5
                    last[j, i] = area
    return torch.tensor(offsets).float(), torch.tensor(weight).float(), torch.tensor(writers)


@pytest.mark.parametrize('mirrored', (0, 1))
def test_augmented(mirrored):
    """Targets of warped images, mirrored and not. Ours give every overlap to the smaller person,
    whatever the rounding."""
    recorded = arrays('augmented.npz')
    folder = CocoFolder(SHARED / 'coco-mini', 'train2017')
    decided_by_rounding = 0
    for image_id in sorted({int(name.split('-')[0]) for name in recorded}):
        theirs = {
            name.split('/')[1]: t
            for name, t in recorded.items()
            if name.startswith(f'{image_id}-{mirrored}/')
        }
        sample = augmented_sample(image_id, theirs['transform'], mirrored)
        ours = {name: t[0] for name, t in augmented_targets([sample]).items()}
        torch.testing.assert_close(sample['image'].int(), theirs['image'].int(), rtol=0, atol=1)

        # recorded in float16
        torch.testing.assert_close(
            ours['heatmaps'], theirs['heatmap_target'].float(), rtol=2**-11, atol=5e-6
        )
        different = ours['heatmap_weight'].half() != theirs['heatmap_weight']
        # rounding of the warp at borders of the mask
        assert different.float().mean() <= 0.002, image_id

        cells = tuple(theirs['offset_cells'].long().T)
        offsets = torch.zeros(34, 64, 64).index_put(cells, theirs['offset_target'])
        weight = torch.zeros(34, 64, 64).index_put(cells, theirs['offset_weight'])
        source = [a['area'] for a in folder.coco.imgToAnns[image_id] if not a['iscrowd']]
        # the recorded transform has an error of 1e-8; one area lies that near to the middle of
        # two numbers in float32
        zoom = float(torch.linalg.det(theirs['transform'])) * (1 - 2e-9)
        worded, worded_weight, writers = released_offsets(
            sample, [a * zoom for a in source], source
        )
        torch.testing.assert_close(worded_weight, weight, rtol=0, atol=5e-6)
        # coordinates of the transform, 256 px in float32
        torch.testing.assert_close(worded, offsets, rtol=0, atol=2e-5)

        same = (ours['offset_weight'] - weight).abs() <= 5e-6
        torch.testing.assert_close(ours['offsets'][same], offsets[same], rtol=0, atol=2e-5)
        assert (writers[~same] > 1).all() and (ours['offset_weight'] >= weight - 5e-6).all()
        decided_by_rounding += (~same).sum().item()
    assert decided_by_rounding == 820


def test_augmented_losses():
    "A batch with images in which nothing is matched: five instances are sent, three count."
    recorded = arrays('augmented-losses.npz')
    samples = [
        augmented_sample(*one)
        for one in zip(recorded['image_ids'].tolist(), recorded['transform'], recorded['mirrored'])
    ]
    targets = augmented_targets(samples)
    torch.testing.assert_close(targets['heatmaps'], recorded['heatmap_target'], rtol=0, atol=5e-6)
    stages = stages_of(recorded['input'], targets)
    assert len(stages['kam']) == recorded['instances'] == 5
    assert stages['matched'].sum() == recorded['matched'] == 3
    different = targets['heatmap_weight'] != recorded['heatmap_weight']
    assert different.float().mean() <= 0.002
    targets['heatmap_weight'] = recorded['heatmap_weight']  # its borders are not what is asked here
    losses = total_loss(stages, targets)
    for name in FACTORS:
        assert losses[name].item() == pytest.approx(recorded[f'loss_{name}'].item(), rel=1e-5), name
