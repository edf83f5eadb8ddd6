"CenterNet against versions with loops over keypoints, rows and columns, and its edge cases."

from math import log
import pytest
import torch
from fastcore.test import test_close as assert_close
from safetensors.torch import load_file, save_file
from logocap.center_offset import find_centers, gaussian_maps, initial_poses, upsample
from logocap.keypoints import example_people, people_tensors
from logocap.losses import make_targets
from logocap.prior.centernet import CenterNet, centernet_losses, find_peaks, match_peaks
from logocap.training import preset_recipe


def top(before, here, after):
    "Of the parabola through three logarithms, from the middle."
    before, here, after = (log(max(value, 1e-6)) for value in (before, here, after))
    bend = 2 * here - before - after
    return (after - before) / (2 * bend) if bend > 0 else 0


def slow_peaks(maps, n=30, threshold=0.1):
    "Maps K×h×w of one image → for each keypoint its (x, y, height), highest first."
    found = []
    for rows in maps.tolist():
        h, w = len(rows), len(rows[0])
        peaks = []
        for y in range(h):
            for x in range(w):
                height = rows[y][x]
                around = [row[max(x - 1, 0) : x + 2] for row in rows[max(y - 1, 0) : y + 2]]
                if height <= threshold or height < max(max(row) for row in around):
                    continue
                dx = top(*rows[y][x - 1 : x + 2]) if 0 < x < w - 1 else 0
                dy = top(rows[y - 1][x], height, rows[y + 1][x]) if 0 < y < h - 1 else 0
                peaks.append((4 * (x + dx), 4 * (y + dy), height))
        peaks.sort(key=lambda peak: -peak[2])
        found.append(peaks[:n])
    return found


def slow_match(pose, peaks, margin=0.1):
    "A pose 17×2 and peaks of `slow_peaks` → 17 times x, y, height or 0."
    xs, ys = pose.T.tolist()
    dx, dy = margin * (max(xs) - min(xs)), margin * (max(ys) - min(ys))
    matched = []
    for x, y, own in zip(xs, ys, peaks):
        best = None
        for px, py, height in own:
            if not min(xs) - dx <= px <= max(xs) + dx:
                continue
            if not min(ys) - dy <= py <= max(ys) + dy:
                continue
            distance = (px - x) ** 2 + (py - y) ** 2
            if best is None or distance < best[0]:
                best = distance, px, py, height
        matched.append([x, y, 0.0] if best is None else list(best[1:]))
    return torch.tensor(matched)


@pytest.fixture
def noise():
    torch.manual_seed(0)
    maps = torch.rand(2, 17, 12, 16) - 0.1
    maps[1, :5] *= 0.1  # nothing above the threshold
    return maps


@pytest.fixture
def model():
    torch.manual_seed(1)
    model = CenterNet(2, 4, 4, 4).eval()
    model.candidates = 12
    return model


def test_peaks(noise):
    "Too many peaks, too few, none, maps of a single row, neighbors that are no Gaussian's."
    single_row, small = noise[..., :1, :], noise[..., :3, :2] + 0.2
    for maps, n in ((noise, 30), (noise, 5), (single_row, 30), (small, 30)):
        peaks = find_peaks(maps, n)
        assert peaks.shape == (2, 17, min(n, maps[0, 0].numel()), 3)
        for fast, slow in zip(peaks.flatten(0, 1), slow_peaks(maps.flatten(0, 1), n)):
            assert (fast[:, 2] > 0).sum() == len(slow)
            if slow:
                assert_close(fast[: len(slow)], torch.tensor(slow), 1e-3)


def test_matching(noise):
    sizes = torch.tensor([0.1, 0.3, 0.5, 1, 1, 1.5])[:, None, None]  # from tiny to above the map's
    poses = torch.rand(2, 6, 17, 2) * torch.tensor([64.0, 48]) * sizes
    peaks, stayed = find_peaks(noise), 0
    for margin in (0.1, 0.0, 1.0):
        xy, height = match_peaks(poses, peaks, margin)
        matched = torch.cat([xy, height[..., None]], -1)
        for b in range(2):
            slow = slow_peaks(noise[b])
            for i in range(6):
                assert_close(matched[b, i], slow_match(poses[b, i], slow, margin), 1e-3)
        stayed += (height == 0).sum()
    assert 0 < stayed < 3 * height.numel()


def test_matching_of_nobody(noise):
    xy, _ = match_peaks(torch.zeros(1, 0, 17, 2), find_peaks(noise)[:1])
    assert xy.shape == (1, 0, 17, 2)


@pytest.mark.parametrize('height, stays', [(0.09, True), (0.11, False)])
def test_least_height(height, stays):
    "Peaks below and above the threshold."
    people, _, _ = people_tensors(example_people()['annotations'])
    standing = people[:1, :, :2]
    bump = height * gaussian_maps(torch.tensor([[84.0, 56]]) / 4, (64, 80), 2.0)
    xy, found = match_peaks(standing[None], find_peaks(bump.expand(1, 17, -1, -1)))
    assert (found == 0).all() == stays
    assert_close(xy[0, 0, 0], standing[0, 0] if stays else torch.tensor([84.0, 56]), 1e-3)


def test_decoder(model):
    heatmaps, offsets = torch.rand(2, 18, 12, 16) - 0.1, 4 * torch.randn(2, 34, 12, 16)
    with torch.no_grad():
        found = model.poses_of((heatmaps, offsets), (48, 64), ('none', 'matched'))
    centers, _ = find_centers(upsample(heatmaps, (48, 64))[:, 17], 12)
    for b in range(2):
        slow = slow_peaks(heatmaps[b, :17])
        none, matched = found['none']['poses'][b], found['matched']['poses'][b]
        for i, (own, pose) in enumerate(zip(none, matched)):
            wanted = slow_match(own[:, :2], slow)
            scores = wanted[:, 2] * centers[b, i, 2]
            wanted[:, 2] = torch.where(wanted[:, 2] > 0, scores, own[:, 2])
            assert_close(pose, wanted, 1e-3)
            assert_close(found['matched']['scores'][b, i], wanted[:, 2].mean(), 1e-4)
    assert torch.equal(found['none']['poses'][..., :2], initial_poses(centers, offsets))


def test_predict_and_files(model, tmp_path):
    for head in (model.heatmap_head, model.offset_head):
        torch.nn.init.normal_(head[3].weight)
    file = tmp_path / 'small.safetensors'
    model.save_pretrained(file)
    back = CenterNet.from_pretrained(file)
    black = torch.zeros(40, 50, 3).byte().numpy()
    assert len(back.predict(black, short_side=64)) > 0
    with pytest.raises(ValueError, match="level 'full': there are none, matched"):
        back.predict(black, level='full')
    tensors = load_file(file)
    del tensors['offset_head.0.weight']
    save_file(tensors, file, dict(method='centernet'))
    says = 'small.safetensors: not a CenterNet checkpoint, it lacks tensor offset_head.0.weight'
    with pytest.raises(ValueError, match=says):
        CenterNet.from_pretrained(file)


def test_losses(model):
    people, areas, _ = people_tensors(example_people()['annotations'])
    targets = make_targets(people[None], areas[None], size=(64, 96))
    images = torch.randn(1, 3, 64, 96)
    losses = centernet_losses(model.train(), images, targets, None, preset_recipe('people'))
    assert_close(losses['total'], losses['heatmaps'] + losses['offsets'])
