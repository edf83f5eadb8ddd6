"""Exported files: the network's poses from PyTorch's format.

And from ONNX, where its packages are installed.
"""

import importlib.util
import json
import numpy as np
import pytest
import torch
from conftest import SHARED
from logocap.adaptation import attract, reweigh
from logocap.center_offset import upsample
from logocap.images import network_input
from logocap.lab.export import (
    FORMATS,
    LIMIT,
    PACKAGES,
    ExportedPoses,
    adapt_factors,
    export_network,
    need,
    pose_differences,
    reweigh_factors,
    window_factors,
)
from logocap.kem import global_kem, global_mesh
from logocap.model import LogoCap
from logocap.predict import detect


@pytest.fixture(scope='session')
def weights(tiny):
    "The recorded images' narrow checkpoint, where it is beside the checkout."
    recorded = SHARED / 'parity/w8.pth.tar'
    return recorded if recorded.is_file() else tiny


@pytest.fixture(scope='session')
def model(weights):
    return LogoCap.from_pretrained(weights)


@pytest.fixture(scope='session', params=FORMATS)
def exported(request, run, weights, tmp_path_factory):
    "A file that the command wrote, with the flip test; shared, because writing it takes longest."
    try:
        need(*PACKAGES[request.param])
    except ValueError as e:
        pytest.skip(str(e))
    file = tmp_path_factory.mktemp('exported') / 'net.file'
    done = run('logocap-export', '--weights', weights, '--format', request.param, '--out', file)
    assert done.returncode == 0, done.stderr
    assert 'keypoints at most 0.0' in done.stdout and list(file.parent.iterdir()) == [file]
    return file


def test_file(exported, model):
    """It says what it is, and finds what the network finds in another size.

    It names no path of the machine that wrote it.
    """
    content, file = exported.read_bytes(), ExportedPoses(exported, 1)
    assert b'site-packages' not in content and b'logocap/' not in content
    assert file.about['flip_test'] == 'true'
    assert file.about['level'] == 'full'
    assert file.about['candidates'] == '30'
    image = np.random.default_rng(0).integers(0, 256, (70, 100, 3), dtype=np.uint8)
    found, theirs = file.predict(image, 64), model.predict(image, short_side=64)
    apart, _, alone = pose_differences(found.keypoints, theirs.keypoints)
    assert len(found) and apart < LIMIT and not alone


def test_parity(exported, model, parity, coco_mini):
    "The recorded images: the poses of the network in the released format."
    file, ties, alone, people = ExportedPoses(exported, 1), 0, 0, 0
    for case in json.loads((parity / 'cases.json').read_text()):
        if case['level'] != 'full':
            continue
        image, side = coco_mini / case['image'], case['short_side']
        x, matrix = network_input(image, side, upright=True)
        found = file.predict(image, side)
        theirs, _ = detect(model, x[None], matrix[None], True, ('full',))['full'][0]
        apart, equal, others = pose_differences(found.keypoints, theirs)
        assert apart < LIMIT, case['image']
        ties, alone, people = ties + equal, alone + others, people + len(found)
    assert people and ties <= 0.01 * 17 * people and not alone


def test_a_file_that_finds_something_else_is_not_kept(exported, tiny, model, tmp_path, monkeypatch):
    other = LogoCap.from_pretrained(tiny)
    other.heatmap_head[-1].weight.data.mul_(-1)
    monkeypatch.setattr('logocap.lab.export.to_program', lambda *options: None)
    for name in ('_onnx_bytes', '_program_bytes'):
        monkeypatch.setattr(f'logocap.lab.export.{name}', lambda *options: exported.read_bytes())
    with pytest.raises(ValueError, match='a.pt2.*(finds|from those of its network)'):
        export_network(other, tmp_path / 'a.pt2', 'torch_export')
    assert not list(tmp_path.iterdir())
    # the same file for its own network
    assert export_network(model, tmp_path / 'a.pt2', 'torch_export')['people']


def test_bad_input(inside, tiny, tmp_path):
    for words, fault in (
        (('--format', 'coreml'), "format 'coreml'"),
        (('--level', 'all', '--format', 'torch_export'), "level 'all'"),
        (('--weights', 'none.pth'), 'none.pth: no such checkpoint'),
    ):
        done = inside('logocap-export', '--weights', tiny, '--out', tmp_path / 'a', *words)
        assert done.returncode == 1
        assert len(done.stderr.strip().splitlines()) == 1
        assert fault in done.stderr
    assert not list(tmp_path.iterdir())


def test_without_onnx(tiny, tmp_path, monkeypatch):
    "Its absence is said before the work, with what to install; so is a torch that is too old."
    model = LogoCap.from_pretrained(tiny)
    monkeypatch.setattr('logocap.lab.export.OLDEST', (2, 5))
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *rest: None)
    with pytest.raises(ValueError, match=r'no onnx .*-m pip install .*onnx'):
        export_network(model, tmp_path / 'a.onnx')
    monkeypatch.setattr('logocap.lab.export.OLDEST', (99, 0))
    for format in FORMATS:
        with pytest.raises(ValueError, match='writes no such file: it takes 99.0 or newer'):
            export_network(model, tmp_path / 'a', format)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('height, width', ((24, 40), (64, 48), (8, 16)))
def test_factors(height, width):
    "The readable pieces' maps wherever the poses lie, also on maps that are smaller than a window."
    torch.manual_seed(0)
    heatmaps, kam = torch.rand(2, 18, height, width), torch.rand(2, 3, 17, 11, 11)
    w, h = 4.0 * width, 4.0 * height
    poses = torch.rand(2, 3, 17, 2) * torch.tensor([w, h]) * 1.6 - 20
    corners = [[-500.0, -500.0], [1e9, 7.25], [0.0, 0.0], [w - 1, h - 1]]
    poses[0, 0, :4] = torch.tensor(corners)
    windows = global_kem(upsample(heatmaps, (4 * height, 4 * width)), global_mesh(poses))
    rows, cells, columns = window_factors(heatmaps, poses)
    products = rows @ cells @ columns.transpose(-1, -2)
    assert torch.allclose(products, windows, rtol=0, atol=2e-4)
    adapted = adapt_factors(*reweigh_factors(rows, cells, columns), kam)
    assert torch.allclose(adapted, attract(reweigh(windows), kam), rtol=0, atol=1e-5)
    rows, cells, columns = window_factors(heatmaps, poses, 1)  # a single point
    points = (rows @ cells @ columns.transpose(-1, -2))[..., 0, 0]
    assert torch.allclose(points, windows[..., 48, 48], rtol=0, atol=2e-4)


def test_pose_differences():
    people = np.random.default_rng(0).uniform(0, 99, (3, 17, 3))
    assert pose_differences(people[::-1], people) == (0, 0, 0)
    assert pose_differences(people[:0], people[:0]) == (0, 0, 0)
    nobody, same = people[:0], people[[0, 0, 1]]
    assert pose_differences(nobody, people) == (0, 0, 3)
    assert pose_differences(same, people) == (0, 0, 2)  # the second of two who are one; the third
    assert pose_differences(people + 50, people) == (0, 0, 6)


def test_files_that_are_none(tmp_path):
    (tmp_path / 'torn.pt2').write_bytes(b'PK' + bytes(40))
    with pytest.raises(ValueError, match='torn.pt2: '):
        ExportedPoses(tmp_path / 'torn.pt2')
    (tmp_path / 'text.onnx').write_text('text')
    fault = 'not a readable ONNX file'
    if importlib.util.find_spec('onnxruntime') is None:
        fault = 'no onnxruntime'
    with pytest.raises(ValueError, match=fault):
        ExportedPoses(tmp_path / 'text.onnx')
    with pytest.raises(FileNotFoundError, match='none.onnx: no such file'):
        ExportedPoses(tmp_path / 'none.onnx')


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr('logocap.lab.export.OLDEST', (2, 5))
    with pytest.raises(ValueError, match='no nonesuch on this machine'):
        need('json', 'nonesuch')
