"""Any number of keypoints from 1 up: 17 stands nowhere but in the definition of COCO's person."""

import json
import re
import tokenize
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from logocap.checkpoints import facts_of, load_network
from logocap.keypoints import PERSON, Skeleton
from logocap.losses import make_targets, total_loss, training_stages
from logocap.model import ABLATIONS, LEVELS, LogoCap
from logocap.prior.dekr import pose_shape, shape_size
from logocap.training import Recipe, find_method

PACKAGE = Path(__file__).parents[1] / 'logocap'
COUNTS = (1, 9, 14, 21)
REST = (
    'annotations', 'coco', 'predict', 'tables', 'compare', 'explore', 'export', 'report', 'speed')


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


@pytest.mark.parametrize('k', COUNTS)
@pytest.mark.parametrize('half', (False, True))
def test_files(tmp_path, k, half):
    network = narrow(k)
    network.save_pretrained(tmp_path / 'own.safetensors', half)
    again = LogoCap.from_pretrained(tmp_path / 'own.safetensors')
    assert again.skeleton == made_up(k)
    assert load_network(tmp_path / 'own.safetensors').skeleton == made_up(k)
    if not half:
        tensors = again.state_dict()
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensors[name], tensor)
    fast = again.optimize()
    assert fast.skeleton == made_up(k)


def test_files_of_persons_say_nothing_of_it(tmp_path):
    assert 'skeleton' not in facts_of(LogoCap(4, 8, 8, 4, (12, 10, 8), 3))


@pytest.mark.parametrize(
    'text, fault',
    (
        (None, "weights for 3 keypoints, but the file does not say which; COCO's are 17"),
        ('no JSON', "gives 'no JSON' as its skeleton, not names, lines, mirror and sigmas"),
        ('[]', "gives '[]' as its skeleton"),
        (dict(names=[]), 'as its skeleton'),
        (dict(names=['a', 'b']), 'as its skeleton'),
        (dict(names=['a', 'b\n', 'c']), 'as its skeleton'),
        (dict(lines=[[0, 3]]), 'as its skeleton'),
        (dict(lines=[[0, 1, 2]]), 'as its skeleton'),
        (dict(lines=[[0.0, 1]]), 'as its skeleton'),
        (dict(flip=[1, 2, 0]), 'as its skeleton'),
        (dict(flip=[-1, 1, 0]), 'as its skeleton'),
        (dict(sigmas=[0.1, 0.1, -1]), 'as its skeleton'),
        (dict(sigmas=[0.1, 0.1, float('nan')]), 'as its skeleton'),
        (dict(sigmas=0.1), 'as its skeleton'),
        (dict(name=7), 'as its skeleton'),
        (asdict(made_up(4)), 'weights for 3 keypoints, but the file names 4'),
    ),
)
def test_files_that_lie(tmp_path, text, fault):
    network = LogoCap(4, 8, 8, 4, (12, 10, 8), 3, skeleton=made_up(3))
    if isinstance(text, dict):
        text = json.dumps(dict(asdict(made_up(3)), **text))
    about = {} if text is None else dict(skeleton=text)
    file = tmp_path / 'wrong.pth'
    torch.save(dict(state_dict=network.state_dict(), about=about), file)
    with pytest.raises(ValueError, match=re.escape(fault)) as caught:
        LogoCap.from_pretrained(file)
    assert str(caught.value).startswith(f'{file}: ') and '\n' not in str(caught.value)


@pytest.mark.parametrize('k', COUNTS)
@pytest.mark.parametrize('name', ('centernet', 'dekr', 'associative_embedding'))
def test_other_methods(tmp_path, name, k):
    torch.manual_seed(k)
    method = find_method(name)
    recipe = Recipe(dict(width=4, stem=8, c1=8, c2=8), size=64, method=name)
    model = method.build(recipe.widths, made_up(k))
    people, areas, valid = some_people(k)
    targets = make_targets(people, areas, valid, size=(64, 64))
    images = torch.randn(2, 3, 64, 64)
    losses = method.losses(model, images, targets, {}, recipe)
    losses['total'].backward()
    assert losses['total'].isfinite()

    model.candidates = 12
    model.eval().save_pretrained(tmp_path / 'own.safetensors')
    again = load_network(tmp_path / 'own.safetensors')
    assert (again.method, again.skeleton) == (name, made_up(k))
    with torch.inference_mode():
        fields = again.lean_fields(images, True)
        found = again.poses_of(fields, (64, 64), again.levels)
    assert all(out['poses'].shape[2:] == (k, 3) for out in found.values())


@pytest.mark.parametrize('k', COUNTS)
def test_shape_of_a_pose(k):
    skeleton = made_up(k)
    poses = torch.rand(5, k, 3) * 50
    assert pose_shape(poses, skeleton).shape == (5, shape_size(skeleton))
    farther = poses * torch.tensor([2.0, 2, 1]) + torch.tensor([7.0, -3, 0])
    assert torch.allclose(pose_shape(farther, skeleton), pose_shape(poses, skeleton), atol=1e-4)
