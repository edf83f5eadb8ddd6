"Training runs as a user starts them: in two processes, on photographs, with bad input."

import json
import subprocess
import sys
import pytest
import torch
from conftest import ROOT
from test_commands import fails

SMALL = ('--size', 64, '--batch-size', 2, '--seed', 3, '--device', 'cpu')


def test_two_processes_have_the_gradients_of_one():
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'torch.distributed.run',
            '--standalone',
            '--nproc-per-node',
            '2',
            ROOT / 'tests/two_processes.py',
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'equal' in done.stdout


def test_photographs(run, coco_mini, tmp_path):
    done = run(
        'logocap-train',
        '--data',
        coco_mini,
        '--preset',
        'paper_w32',
        '--out',
        tmp_path,
        '--size',
        64,
        '--batch-size',
        2,
        '--steps',
        2,
        '--val-data',
        coco_mini,
        '--val-split',
        'val2017',
        '--val-images',
        4,
        '--device',
        'cpu',
    )
    assert done.returncode == 0, done.stderr
    log = [json.loads(line) for line in (tmp_path / 'log.jsonl').read_text().splitlines()]
    assert set(log[-1]['validation']) == {'none', 'full'}
    from logocap.model import LogoCap

    assert LogoCap.from_pretrained(tmp_path / 'model.safetensors').short_side == 64


def test_trained_without_a_piece(run, tmp_path):
    "What the tensors do not tell, the local window's side, travels in checkpoint and weights."
    done = run('logocap-train', '--out', tmp_path, *SMALL, '--steps', 1, '--window', 5, '--k', 0)
    assert done.returncode == 0, done.stderr
    from logocap.model import LogoCap

    for file in ('checkpoint.pt', 'model.safetensors'):
        model = LogoCap.from_pretrained(tmp_path / file)
        assert (model.short_side, model.window, model.widths['k']) == (64, 5, 0)
        assert model(torch.zeros(1, 3, 64, 64))['kam'].shape[-2:] == (5, 5)


def test_samples_of_photographs(coco_mini):
    "Warped, turned and mirrored pictures keep their keypoints on the same picture content."
    from dataclasses import replace
    import numpy as np
    from logocap.images import read_image
    from logocap.coco import CocoFolder
    from logocap.training import PRESETS, CocoSamples

    folder = CocoFolder(coco_mini, 'train2017')
    samples = CocoSamples(folder, replace(PRESETS['paper_w32'], size=256), seed=1)
    differences = []
    for n in range(len(samples)):
        picture, truth = (
            read_image(folder.image_path(samples.ids[n])),
            folder.people(samples.ids[n])[0],
        )
        sample = samples[0, n, 0.0]
        assert torch.equal(sample['image'], samples[0, n, 0.0]['image'])
        people = sample['people'][(sample['people'][..., 2] > 0).any(1)]
        turned = None
        for flipped in (False, True):  # which keypoint of the source each one is
            from logocap.keypoints import FLIP

            source = truth[:, list(FLIP)] if flipped else truth
            same = (source[..., 2] == people[..., 2]).all()
            if not same:
                continue
            inside = (people[..., 2] > 0) & ((people[..., :2] >= 2) & (people[..., :2] <= 253)).all(
                -1
            )

            def at(image, xy):
                return np.stack([image[int(y + 0.5), int(x + 0.5)] for x, y in xy.tolist()]).astype(
                    float
                )

            keep = (
                inside
                & (source[..., 0] < picture.shape[1] - 1)
                & (source[..., 1] < picture.shape[0] - 1)
            )
            if not keep.any():
                continue
            d = np.abs(
                at(picture, source[keep][:, :2]) - at(sample['image'].numpy(), people[keep][:, :2])
            ).mean()
            turned = d if turned is None else min(turned, d)
        if turned is not None:
            differences.append(turned)
    # grey levels; unrelated pixels differ by about 70
    assert len(differences) > 30
    assert np.median(differences) < 20


@pytest.mark.parametrize(
    'options, fault',
    (
        ((), '--out'),
        (('--preset', 'mine'), "preset 'mine'"),
        (('--data', 'nowhere'), 'nowhere: no such folder'),
        (('--size', 100), 'size 100'),
        (('--batch-size', 0), 'batch of 0'),
        (('--accumulate', 3), 'batch of 8 images in 3 parts'),
        (('--variant', 'mine'), "variant 'mine'"),
        (('--steps', 0), 'steps 0: at least 1'),
        (('--steps', 1, '--until', -3), 'until -3: at least 1'),
        (('--steps', 1, '--save-every', 0), 'save every 0: at least 1'),
        (('--steps', 1, '--validate-every', 0), 'validate every 0: at least 1'),
        (('--steps', 1, '--val-images', 0), 'validation images 0: at least 1'),
        (('--steps', 1, '--seed', -1), 'seed -1: not a whole number from 0'),
        (('--lr', 'nan'), "invalid number value: 'nan'"),
        (('--backbone', 'none.pth', '--steps', 1), 'none.pth: no such checkpoint'),
    ),
)
def test_bad_input(inside, tmp_path, options, fault):
    out = () if not options else ('--out', tmp_path / 'run')
    fails(inside('logocap-train', '--device', 'cpu', *out, *options), fault, 'logocap-train')
    assert not (tmp_path / 'run').exists()


def test_changed_and_torn_runs(run, inside, tmp_path):
    options = (*SMALL, '--steps', 1)
    assert run('logocap-train', '--out', tmp_path / 'run', *options).returncode == 0
    fails(
        inside('logocap-train', '--out', tmp_path / 'run', *options[:-1], 2),
        'begun with steps 1, not 2',
        'logocap-train',
    )
    (tmp_path / 'run/checkpoint.pt').write_bytes(b'torn')
    fails(
        inside('logocap-train', '--out', tmp_path / 'run', *options),
        'checkpoint.pt: not a readable checkpoint',
        'logocap-train',
    )
