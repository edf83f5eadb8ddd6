"""Any number of keypoints from 1 up: 17 stands nowhere but in the definition of COCO's person."""

import copy
import functools
import json
import re
import tokenize
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from logocap.checkpoints import facts_of, load_network
from logocap.coco import CocoFolder, average_precision, coco_results
from logocap.images import normalize
from logocap.keypoints import PERSON, Skeleton, oks
from logocap.lab.compare import read_results
from logocap.lab.explore import (
    decoder_view,
    keypoint_view,
    look,
    look_at_split,
    oks_view,
    window_view,
)
from logocap.lab.export import ExportedPoses, PixelsToPoses, export_network
from logocap.lab.report import count_errors
from logocap.losses import make_targets, total_loss, training_stages
from logocap.model import ABLATIONS, LEVELS, LogoCap
from logocap.predict import Poses, detect_split
from logocap.prior.dekr import pose_shape, shape_size
from logocap.tables import bound_results, make_table1
from logocap.training import CocoSamples, Recipe, find_method, mirrored_sample, train

PACKAGE = Path(__file__).parents[1] / 'logocap'
COUNTS = (1, 9, 14, 21)


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


@functools.cache
def seasoned(k):
    "A narrow network with random weights, whose batch norms have seen some data."
    torch.manual_seed(k)
    network = LogoCap(4, 8, 8, 4, (12, 10, 8), 3, skeleton=made_up(k))
    with torch.no_grad():
        for _ in range(3):
            network.fields(torch.randn(2, 3, 64, 96))
    return network.eval()


def narrow(k):
    "A copy of it, and random numbers that begin anew."
    network = copy.deepcopy(seasoned(k))
    torch.manual_seed(k)
    return network


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


def a_folder(root, k, split='val', images=3):
    "A split in COCO's layout: noise, and on each image two creatures of K keypoints."
    skeleton = made_up(k)
    rng = np.random.default_rng(k)
    pairs = [[n + 1, other + 1] for n, other in enumerate(skeleton.flip) if n < other]
    category = dict(
        id=1, name=skeleton.name, keypoints=list(skeleton.names), flip_pairs=pairs,
        skeleton=[[a + 1, b + 1] for a, b in skeleton.lines], sigmas=list(skeleton.sigmas))
    dataset = dict(images=[], annotations=[], categories=[category])
    (root / 'annotations').mkdir(parents=True, exist_ok=True)
    (root / split).mkdir()
    for i in range(1, images + 1):
        name = f'{i}.png'
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(root / split / name)
        dataset['images'].append(dict(id=i, file_name=name, width=64, height=64))
        for left in (2, 32):
            points = np.stack([left + rng.integers(0, 28, k), rng.integers(2, 60, k)], 1)
            points = np.concatenate([points, np.full((k, 1), 2)], 1)
            dataset['annotations'].append(dict(
                id=len(dataset['annotations']) + 1, image_id=i, category_id=1, iscrowd=0,
                keypoints=points.flatten().tolist(), num_keypoints=k, area=1200.0,
                bbox=[left, 2, 28, 58],
                segmentation=[[left, 2, left + 28, 2, left + 28, 60, left, 60]]))
    file = root / 'annotations' / f'person_keypoints_{split}.json'
    file.write_text(json.dumps(dataset))
    return CocoFolder(root, split)


@pytest.mark.parametrize('k', COUNTS)
def test_predict_and_draw(tmp_path, k):
    model = narrow(k)
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    poses = model.predict(image, short_side=64)
    assert poses.keypoints.shape[1:] == (k, 3) and poses.skeleton == made_up(k)

    someone = np.concatenate([10 + 40 * np.random.default_rng(1).random((2, k, 2)),
                              np.ones((2, k, 1))], 2)
    known = Poses(someone, np.array([0.9, 0.8]), image, skeleton=made_up(k))
    assert known[:1].skeleton == made_up(k)
    assert len(known.to_coco()[0]['keypoints']) == 3 * k
    assert (known.drawing() != image).any()
    known.save(tmp_path / 'drawn.png')
    pandas = pytest.importorskip('pandas')
    table = known.to_dataframe()
    assert isinstance(table, pandas.DataFrame)
    assert table.keypoint.tolist() == 2 * list(made_up(k).names)


@pytest.mark.parametrize('k', COUNTS)
def test_precision_takes_the_folders_sigmas(tmp_path, k):
    folder = a_folder(tmp_path, k, images=1)
    assert folder.skeleton == made_up(k)
    people, areas, _ = folder.people(1)
    off = people.clone()
    off[..., 0] += 1.5
    scores = np.array([0.9, 0.8])
    similarity = oks(off[..., :2], people, areas, skeleton=folder.skeleton)
    thresholds = torch.arange(50, 100, 5) / 100
    expected = 100 * (similarity[:, None] >= thresholds).float().mean().item()
    assert 0 < expected < 100 and len(similarity.unique()) == 1
    found = average_precision(folder.coco, coco_results(1, off.numpy(), scores))
    assert found['AP'] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize('k', COUNTS)
def test_training_and_tables(tmp_path, k):
    folder = a_folder(tmp_path / 'data', k)
    widths = dict(width=4, stem=8, c1=8, c2=8, c3=4, cmp_widths=(12, 10, 8), k=3)
    recipe = Recipe(widths, size=64, batch_size=2)
    samples = CocoSamples(folder, recipe)
    model = train(
        samples, recipe, tmp_path / 'run', 2, validation=folder, device='cpu', save_every=1)
    assert model.skeleton == made_up(k)
    weights = tmp_path / 'run/model.safetensors'
    assert load_network(weights).skeleton == made_up(k)
    further = train(samples, recipe, tmp_path / 'more', 1, weights=weights, device='cpu')
    assert further.skeleton == made_up(k)

    if k == 1:
        table = make_table1(tmp_path / 'data', 'val', weights, tmp_path / 'table', 64, False,
                            device='cpu')
        assert set(table['rows']) == {'Baseline', 'Emp. Bound', 'LOGO-CAP'}
        return
    detections = detect_split(load_network(weights), folder, [1, 2], 64, False)
    moved = bound_results(folder.coco, detections['none'])
    assert all(len(result['keypoints']) == 3 * k for result in moved)


def test_other_keypoints_than_the_datas(tmp_path):
    folder = a_folder(tmp_path / 'data', 9)
    narrow(14).save_pretrained(tmp_path / 'own.safetensors')
    recipe = Recipe(narrow(14).widths, size=64, batch_size=2)
    begun = r'own.safetensors: a network for 14 keypoints of creature \(point 0, .*, data with 9 '
    with pytest.raises(ValueError, match=begun):
        train(CocoSamples(folder, recipe), recipe, tmp_path / 'run', 1, device='cpu',
              weights=tmp_path / 'own.safetensors')
    assert not (tmp_path / 'run').exists()
    with pytest.raises(ValueError, match='val.json: a network for 14 keypoints'):
        detect_split(narrow(14), folder, [1], 64)


@pytest.mark.parametrize('k', COUNTS)
def test_mirror(k):
    sample = dict(
        image=torch.zeros(64, 64, 3, dtype=torch.uint8), people=64 * torch.rand(2, k, 3),
        centers=torch.rand(2, 2), ignore=torch.zeros(16, 16, dtype=torch.bool))
    mirrored = mirrored_sample(sample, skeleton=made_up(k))
    assert torch.equal(mirrored['people'][..., 1:], sample['people'][:, made_up(k).flip, 1:])
    again = mirrored_sample(mirrored, skeleton=made_up(k))
    assert torch.allclose(again['people'], sample['people'], atol=1e-4)


@pytest.mark.parametrize('k', COUNTS)
@pytest.mark.parametrize('level', LEVELS)
def test_what_is_exported(k, level):
    model = narrow(k)
    pixels = torch.randint(0, 255, (2, 64, 96, 3), dtype=torch.uint8)
    images = torch.stack([normalize(image.numpy()) for image in pixels])
    with torch.inference_mode():
        poses, scores, _ = PixelsToPoses(model, True, level)(pixels)
        ours = model.at_level(model(images, True), level)
    assert poses.shape == (2, 30, k, 3)
    # upsampling repeats what lies at a border, so peaks there are up to four equal cells in a row:
    # rounding puts them in another order, and at the 30th candidate decides which of them count
    there = scores[:, :, None].isclose(ours['scores'][:, None], rtol=1e-3, atol=1e-5).any(-1)
    assert (~there).sum(1).max() <= 4


@pytest.mark.parametrize('k, format', ((14, 'torch_export'), (1, 'onnx')))
def test_exported_files(tmp_path, k, format):
    if format == 'onnx':
        pytest.importorskip('onnx')
        pytest.importorskip('onnxruntime')
    file = tmp_path / 'network'
    export_network(narrow(k), file, format, flip_test=False, check=False)
    exported = ExportedPoses(file)
    assert exported.skeleton == made_up(k)
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    assert exported(image[None])[0].shape == (1, 30, k, 3)
    assert exported.predict(image, 64).skeleton == made_up(k)


@pytest.mark.parametrize('k', COUNTS)
def test_widgets(tmp_path, k):
    pytest.importorskip('ipywidgets')
    folder = a_folder(tmp_path, k, images=1)
    model = narrow(k)
    model.short_side = 64
    picture = folder.image_path(1), folder.coco.imgToAnns[1]
    seen = look(model, picture)
    last = made_up(k).names[-1]
    assert last in keypoint_view(seen)[1](0, last)
    assert last in oks_view(seen)[1](1, last, 2.0, 1.0)
    assert 'true keypoints' in window_view(seen, {3: 1.0, 5: 2.0})[1](0, 3)
    split = look_at_split(model, folder, widths=(16.0,))
    assert 'candidates kept' in decoder_view(seen, split)[1]()
    with pytest.raises(ValueError, match='picture: a network for'):
        look(model)


@pytest.mark.parametrize('k', COUNTS)
def test_errors_of_keypoints(tmp_path, k):
    folder = a_folder(tmp_path, k, images=2)
    results = []
    for i in (1, 2):
        results += coco_results(i, folder.people(i)[0].numpy(), np.array([0.9, 0.8]))
    counted = count_errors(folder, results, [1, 2])
    assert counted['good'] == 1 and counted['missed'] == 0
    (tmp_path / 'results.json').write_text(json.dumps(results))
    assert len(read_results(tmp_path / 'results.json', folder)) == 4
    results[1]['keypoints'].append(0.0)
    (tmp_path / 'results.json').write_text(json.dumps(results))
    with pytest.raises(ValueError, match=rf'\[1\].keypoints is .*: expected {k} times x, y and'):
        read_results(tmp_path / 'results.json', folder)
