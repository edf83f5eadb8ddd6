"""Any number of keypoints from 1 up: 17 stands nowhere but in the definition of COCO's person."""

import tokenize
from pathlib import Path

import pytest
import torch

from logocap.keypoints import PERSON, Skeleton
from logocap.losses import make_targets, total_loss, training_stages
from logocap.model import ABLATIONS, LEVELS, LogoCap

PACKAGE = Path(__file__).parents[1] / 'logocap'
COUNTS = (1, 9, 14, 21)
REST = (
    'annotations', 'coco', 'fast', 'predict', 'tables', 'training', 'compare', 'explore', 'export',
    'report', 'speed', 'associative_embedding', 'centernet', 'dekr')


def made_up(k):
    "A skeleton of K keypoints in a row: 1 and 2 change places in a mirror, so do 3 and 4, …"
    flip = list(range(k))
    for left in range(1, k - 1, 2):
        flip[left], flip[left + 1] = left + 1, left
    return Skeleton(
        names=tuple(f'point {n}' for n in range(k)),
        lines=tuple((n, n + 1) for n in range(k - 1)),
        flip=tuple(flip),
        sigmas=tuple(0.03 + 0.01 * (n % 5) for n in range(k)),
        name='creature',
    )


def narrow(k):
    "A narrow network with random weights, whose batch norms have seen some data."
    torch.manual_seed(k)
    network = LogoCap(4, 8, 8, 4, (12, 10, 8), 3, skeleton=made_up(k))
    with torch.no_grad():
        for _ in range(3):
            network.fields(torch.randn(2, 3, 64, 96))
    return network.eval()


def some_people(k):
    "Two images with two creatures and one: B×M×K×3, areas and who is real."
    torch.manual_seed(k)
    places = 20 + 50 * torch.rand(2, 2, k, 2)
    people = torch.cat([places, torch.full((2, 2, k, 1), 2.0)], -1)
    return people, torch.full((2, 2), 1600.0), torch.tensor([[True, True], [True, False]])


def test_no_number_but_cocos():
    """17 keypoints, 18 heatmaps, 34 offsets and 51 numbers a person are read off arrays.

    What else these numbers may be, in lines that have nothing to do with keypoints."""
    others = ('rng.integers(0, 17)', 'arm_flex=(-12, 18)', '2**18', 'range(18, 24)')
    for file in sorted(PACKAGE.rglob('*.py')):
        if file.stem in REST:
            continue
        with tokenize.open(file) as f:
            for token in tokenize.generate_tokens(f.readline):
                if token.type != tokenize.NUMBER or token.string not in ('17', '18', '34', '51'):
                    continue
                known = any(text in token.line for text in others)
                assert known, f'{file.name}:{token.start[0]}: {token.line.strip()}'


def test_person_is_the_default():
    network = LogoCap(4, 8, 8, 4, (12, 10, 8), 3)
    assert network.skeleton is PERSON
    for part in (network.heatmap_head, network.offset_head):
        assert part[-1].out_channels in (len(PERSON) + 1, 2 * len(PERSON))


@pytest.mark.parametrize('k', COUNTS)
def test_forward(k):
    network = narrow(k)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        stages = network(images, flip_test=True)
        assert stages['heatmaps'].shape == (2, k + 1, 16, 24)
        assert stages['offsets'].shape == (2, 2 * k, 16, 24)
        assert stages['poses'].shape == (2, 30, k, 3)
        levels = (*LEVELS, *ABLATIONS)
        found = network.poses_of(network.fields(images), (64, 96), levels)
    assert all(out['poses'].shape[2:] == (k, 3) for out in found.values())


@pytest.mark.parametrize('k', COUNTS)
@pytest.mark.parametrize('variant', ('released', 'paper'))
def test_losses_and_a_step(k, variant):
    network = narrow(k).train()
    people, areas, valid = some_people(k)
    images = torch.randn(2, 3, 96, 96)
    targets = make_targets(people, areas, valid, size=(96, 96), variant=variant)
    assert targets['heatmaps'].shape == (2, k + 1, 24, 24)
    assert targets['offsets'].shape == (2, 2 * k, 24, 24)

    optimizer = torch.optim.SGD(network.parameters(), 1e-3)
    before = [p.detach().clone() for p in network.parameters()]
    heatmaps, offsets, embedding = network.fields(images)
    stages = training_stages(
        heatmaps, offsets, embedding, network.cmp, (96, 96), targets,
        variant=variant, skeleton=network.skeleton)
    losses = total_loss(stages, targets, variant)
    losses['total'].backward()
    optimizer.step()
    assert losses['total'].isfinite()
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters()))
