"DEKR against versions with loops, files that are none of its checkpoints, and its command."

import json
from dataclasses import asdict, replace
import numpy as np
import pytest
import torch
from fastcore.test import test_close as assert_close
from safetensors.torch import load_file, save_file
from torch import nn
from logocap.prior.dekr import (
    DEKR,
    adaptive_convolution,
    dekr_widths,
    kernel_places,
    train_rescoring,
)
from logocap.training import preset_recipe, start_model


def read(maps, x, y):
    "Maps C×h×w at a fractional place: C values, bilinear, 0 outside."
    x0, y0 = int(x // 1), int(y // 1)
    total = torch.zeros(len(maps))
    for row, row_share in ((y0, y0 + 1 - y), (y0 + 1, y - y0)):
        for column, column_share in ((x0, x0 + 1 - x), (x0 + 1, x - x0)):
            if 0 <= row < maps.shape[1] and 0 <= column < maps.shape[2]:
                total = total + row_share * column_share * maps[:, row, column]
    return total


def slow_convolution(features, transforms, weight):
    "y(q) = Σ W·x(q + A·r + t), one number at a time."
    b, _, h, w = features.shape
    k, d, c, _ = weight.shape
    out = torch.zeros(b, k, d, h, w)
    for image in range(b):
        for part in range(k):
            own = features[image, part * c : part * c + c]
            for row in range(h):
                for column in range(w):
                    numbers = transforms[image, 6 * part : 6 * part + 6, row, column].tolist()
                    ax, ay, bx, by, tx, ty = numbers
                    for n in range(9):
                        dx, dy = n % 3 - 1, n // 3 - 1
                        x, y = column + ax * dx + bx * dy + tx, row + ay * dx + by * dy + ty
                        out[image, part, :, row, column] += weight[part, :, :, n] @ read(own, x, y)
    return out.flatten(1, 2)


def test_adaptive_convolution():
    torch.manual_seed(0)
    k, c, d = 3, 2, 4
    features, weight = torch.randn(2, k * c, 5, 7), torch.randn(k, d, c, 9)
    ordinary = torch.tensor([1.0, 0, 0, 1, 0, 0]).repeat(k)[None, :, None, None]
    any_grid = ordinary + torch.randn(2, 6 * k, 5, 7)
    fast = adaptive_convolution(features, kernel_places(any_grid), weight)
    assert_close(fast, slow_convolution(features, any_grid, weight), 1e-4)


def slow_centers(heat, candidates):
    "A map h×w → its peaks: (height, x, y), highest first."
    peaks = []
    for y in range(heat.shape[0]):
        for x in range(heat.shape[1]):
            highest = heat[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].max()
            if heat[y, x] > 0 and heat[y, x] == highest:
                peaks.append((heat[y, x].item(), x, y))
    peaks.sort(reverse=True)
    return peaks[:candidates]


def slow_decoder(heat, offsets, candidates):
    "Of one image: 18×h×w, 34×h×w → poses P×17×3, best center first."
    h, w = heat.shape[1:]
    poses = []
    for score, x, y in slow_centers(heat[17], candidates):
        if score < 0.01 and poses:
            continue
        pose = torch.zeros(17, 3)
        for k in range(17):
            kx, ky = (x - offsets[2 * k, y, x]).item(), (y - offsets[2 * k + 1, y, x]).item()
            px, py = min(max(kx, 0), w - 1), min(max(ky, 0), h - 1)
            x0, y0 = min(int(px), w - 2), min(int(py), h - 2)
            value = 0.0
            for row in (y0, y0 + 1):
                for column in (x0, x0 + 1):
                    share = (1 - abs(py - row)) * (1 - abs(px - column))
                    value += heat[k, row, column] * share
            pose[k] = torch.tensor([4 * kx, 4 * ky, value * score])
        poses.append(pose)
    return torch.stack(poses)


@pytest.fixture
def model():
    torch.manual_seed(1)
    model = DEKR(2, 4, 2, 8, 4).eval()
    model.candidates = 12
    return model


def test_decoder(model):
    heat, offsets = torch.rand(2, 18, 12, 16), 4 * torch.randn(2, 34, 12, 16)
    with torch.no_grad():
        found = model.poses_of((heat, offsets), (48, 64), ('plain',))['plain']
    for n in range(2):
        slow = slow_decoder(heat[n], offsets[n], 12)
        assert_close(found['poses'][n, : len(slow)], slow, 1e-3)
        assert_close(found['scores'][n, : len(slow)], slow[..., 2].mean(1), 1e-4)
        assert found['valid'][n].sum() == len(slow)


@pytest.fixture
def saved(model, tmp_path):
    file = tmp_path / 'small.safetensors'
    model.save_pretrained(file)
    return file


def test_predict(saved):
    back = DEKR.from_pretrained(saved)
    black = np.zeros((40, 50, 3), np.uint8)
    assert len(back.predict(black, short_side=64, level='plain')) >= 0
    with pytest.raises(ValueError, match="level 'full': there are plain, rescored"):
        back.predict(black, level='full')


@pytest.mark.parametrize(
    'name, shape, says',
    [
        ('rescoring.0.weight', None, 'not a DEKR checkpoint, it lacks tensor rescoring.0.weight'),
        (
            'offset_head.0.weight',
            (40, 30, 1, 1),
            '40 channels in tensor offset_head.0.weight cannot be shared',
        ),
        ('offset_head.3.weight', (17, 2, 2, 4), 'offset_head.3.weight'),
    ],
)
def test_wrong_tensors(saved, name, shape, says):
    tensors = load_file(saved)
    del tensors[name]
    if shape:
        tensors[name] = torch.zeros(shape)
    save_file(tensors, saved, dict(method='dekr', short_side='256'))
    with pytest.raises(ValueError, match=says):
        DEKR.from_pretrained(saved)


def test_size():
    model = DEKR(**dekr_widths(dict(width=8, stem=16, c1=16)))
    assert sum(p.numel() for p in model.parameters()) < 1.9e6


def teach(run):
    train_rescoring(run, pictures=3, epochs=2, device='cpu')


def test_rescoring_is_trained(tmp_path, capsys):
    "Given twice it begins anew and ends the same."
    widths = dict(width=2, c1=4, stem=4)
    recipe = replace(preset_recipe('people'), widths=widths, size=64, method='dekr')
    record = json.dumps(dict(asdict(recipe), seed=5, steps=1, world=1))
    (tmp_path / 'recipe.json').write_text(record)
    model = start_model(recipe, 0, None, 'cpu').eval()
    for layer in (model.heatmap_head[3], model.offset_head[5]):
        nn.init.zeros_(layer.weight)
    nn.init.constant_(model.heatmap_head[3].bias, 0.5)  # finds somebody everywhere
    file = tmp_path / 'model.safetensors'
    model.save_pretrained(file)
    teach(tmp_path)
    assert capsys.readouterr().out.startswith('90 poses of a mean OKS of 0.')
    before, first = model.state_dict(), load_file(file)
    changed = {name for name, tensor in first.items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.startswith('rescoring.') for name in changed)
    teach(tmp_path)
    for name, tensor in load_file(file).items():
        assert torch.equal(tensor, first[name]), name


@pytest.mark.parametrize(
    'record, says',
    [
        (None, 'no such record of a run'),
        ('[]', 'not the record of a run'),
        (json.dumps(dict(asdict(preset_recipe('people')), seed=5)), 'a run of the method logocap'),
    ],
)
def test_rescoring_without_a_run(tmp_path, record, says):
    if record:
        (tmp_path / 'recipe.json').write_text(record)
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        teach(tmp_path)
