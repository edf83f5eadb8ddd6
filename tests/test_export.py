"Exported files: the network's poses from PyTorch's format, and from ONNX where its packages are installed."
import importlib.util
import numpy as np
import pytest
import torch
from logocap.coco import network_input
from logocap.export import LIMIT, ExportedPoses, export_network, pose_differences
from logocap.model import LogoCap, detect

ONNX = all(importlib.util.find_spec(p) for p in ('onnx', 'onnxscript', 'onnxruntime'))
formats = pytest.mark.parametrize('format', ['torch_export', pytest.param('onnx', marks=pytest.mark.skipif(not ONNX, reason="no onnxruntime: pip install -e '.[export]'"))])


@formats
def test_command(format, run, tiny, tmp_path):
    "One file, nothing beside it, that finds what the network finds: in other sizes and numbers of pictures too, with the flip test."
    done = run('logocap-export', '--weights', tiny, '--format', format, '--out', tmp_path/'net.file')
    assert done.returncode == 0, done.stderr
    assert 'keypoints at most 0.0' in done.stdout and [p.name for p in tmp_path.iterdir()] == ['net.file']
    exported, model = ExportedPoses(tmp_path/'net.file', 1), LogoCap.from_pretrained(tiny)
    assert exported.about['flip_test'] == 'true' and exported.about['level'] == 'full' and exported.about['candidates'] == '30'
    pictures = np.random.default_rng(0).integers(0, 256, (2, 70, 100, 3), dtype=np.uint8)
    for picture in pictures:
        found, theirs = exported.predict(picture, 64), model.predict(picture, short_side=64)
        assert len(found) and pose_differences(found.keypoints, theirs.keypoints)[0] < LIMIT
    content = (tmp_path/'net.file').read_bytes()
    assert b'site-packages' not in content and b'logocap/' not in content  # no paths of the machine that wrote it


@formats
def test_parity(format, parity, coco_mini, tmp_path):
    "The recorded pictures, without flip test: the poses of the network in the released format."
    import json
    model = LogoCap.from_pretrained(parity/'w8.pth.tar')
    export_network(model, tmp_path/'net', format, flip_test=False)
    exported, ties, keypoints = ExportedPoses(tmp_path/'net'), 0, 0
    for case in json.loads((parity/'cases.json').read_text()):
        if case['flip_test'] or case['level'] != 'full': continue
        picture, side = coco_mini/case['image'], case['short_side']
        found = exported.predict(picture, side)
        x, matrix = network_input(picture, side, upright=True)
        theirs = detect(model, x[None], matrix[None], False, ('full',))['full'][0]
        apart, equal = pose_differences(found.keypoints, theirs[0])
        assert apart < LIMIT
        ties, keypoints = ties + equal, keypoints + 17 * len(found)
    assert keypoints and ties <= .01 * keypoints


def test_bad_input(run, tiny, tmp_path):
    for words, fault in ((('--format', 'coreml'), "format 'coreml'"), (('--level', 'all', '--format', 'torch_export'), "level 'all'"), (('--weights', 'none.pth'), 'none.pth: no such checkpoint')):
        done = run('logocap-export', '--weights', tiny, '--out', tmp_path/'a', *words)
        assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1 and fault in done.stderr
    assert not list(tmp_path.iterdir())


def test_without_onnx(tiny, tmp_path, monkeypatch):
    "Its absence is said before the work, with what to install."
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *rest: None)
    with pytest.raises(ValueError, match=r"no onnx .*pip install 'logocap\[export\]'"): export_network(LogoCap.from_pretrained(tiny), tmp_path/'a.onnx')
    assert not list(tmp_path.iterdir())


def test_a_file_that_finds_something_else_is_not_kept(tiny, tmp_path, monkeypatch):
    import logocap.export
    monkeypatch.setattr(logocap.export, 'adapt_factors', lambda rows, cells, columns, kam: rows @ cells @ columns.transpose(-1, -2))
    with pytest.raises(ValueError, match='from those of its network'): export_network(LogoCap.from_pretrained(tiny), tmp_path/'a.pt2', 'torch_export')
    assert not list(tmp_path.iterdir())
