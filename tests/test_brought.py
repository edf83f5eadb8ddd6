"What people bring along: other programs' files, folders, terminals and machines."

import io
import json
import os
import subprocess
import sys
from pathlib import Path
import numpy as np
import pytest
import torch
from PIL import Image
from conftest import ROOT, SHARED
from logocap import LogoCap
from logocap.checkpoints import read_checkpoint
from logocap.coco import CocoFolder, f1_curve, least_score
from logocap.command import load_batches
from logocap.images import read_image
from logocap.predict import detect_split, image_files
import logocap.images

CASES = sorted(f.parent for f in (SHARED / 'cases').glob('*/run.sh'))
DEEP = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000


@pytest.mark.skipif(not CASES, reason='no shared/cases on this machine')
@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_cases(case, tmp_path):
    if case.name == 'small_shm':
        tried = subprocess.run(['unshare', '-m', 'true'], capture_output=True)
        if tried.returncode:
            pytest.skip('needs the right to mount a file system')
    bin = str(Path(sys.executable).parent)
    environment = dict(os.environ, LOGOCAP_BIN=bin, TMPDIR=str(tmp_path))
    done = subprocess.run(
        ['bash', case / 'run.sh'], env=environment, capture_output=True, text=True, timeout=600
    )
    if 'No matching distribution' in done.stderr:
        pytest.skip('another version of pycocotools cannot be had here')
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize('kind', ('PNG', 'TIFF', 'JPEG2000', 'PPM'))
def test_gray_of_sixteen_bits(kind, tmp_path):
    file = tmp_path / f'deep.{kind.lower()}'
    Image.fromarray(DEEP).save(file, kind)
    assert (read_image(file)[..., 0] == DEEP // 257).all()
    with pytest.warns(UserWarning, match='uses 12; if its camera had no more, it is read 16 times'):
        Image.fromarray(DEEP // 16).save(file, kind)
        read_image(file)


def test_what_an_image_may_be(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    file = tmp_path / 'a.png'
    Image.fromarray(pixels).save(file)
    content = file.read_bytes()
    tensor = torch.from_numpy(pixels)
    with open(file, 'rb') as opened:
        opened.read(5)
        sources = (
            *(file, str(file), content, io.BytesIO(content), opened, Image.open(file), pixels),
            *(tensor, tensor.permute(2, 0, 1)),
        )
        for source in sources:
            assert (read_image(source) == pixels).all(), type(source)
    assert (read_image(pixels[..., 0]) == pixels[..., :1]).all()
    for source, fault in (
        (pixels / 255.0, 'not an H×W×3 or H×W uint8 image'),
        (pixels[None], 'not an H×W×3'),
        (7, 'a int is no image'),
        (b'', 'image: not a readable image'),
        (io.BytesIO(b'torn'), 'image: not a readable image'),
    ):
        with pytest.raises(ValueError, match=fault):
            read_image(source)


def test_formats_without_a_reader(tmp_path, monkeypatch):
    "The package that reads them is named, for a file as for a folder."
    known = logocap.images.readable_formats()
    fewer = tuple(name for name in known if name not in ('HEIF', 'AVIF'))
    monkeypatch.setattr(logocap.images, 'readable_formats', lambda: fewer)
    for name in ('a.heic', 'b.HEIC', 'c.avif', 'd.txt', '.hidden'):
        (tmp_path / name).write_bytes(b'\0\0\0\x18ftypheic')
    with pytest.raises(ValueError, match='a.heic: not a readable image .*pip install pillow-heif'):
        read_image(tmp_path / 'a.heic')
    monkeypatch.setattr('logocap.predict.readable_formats', lambda: fewer)
    with pytest.raises(ValueError) as refused:
        image_files([tmp_path])
    said = str(refused.value)
    assert 'no images there, but 2 .heic (HEIC, which `pip install pillow-heif`' in said
    assert '1 .avif (AVIF, which Pillow reads from version 11.3 on), 1 .txt' in said
    assert 'hidden' not in said


TENSORS = {'backbone.conv1.weight': torch.ones(2), 'joints_mlp.0.weight': torch.zeros(2)}


@pytest.mark.parametrize(
    'content',
    (
        {'state_dict': TENSORS, 'AP': np.float64(67.8), 'epoch': np.int64(3), 'ok': np.bool_(1)},
        {'model': TENSORS, 'optimizer': {'state': {0: {'step': torch.ones(1)}}}},
        {'model': {n: t + 7 for n, t in TENSORS.items()}, 'ema': TENSORS},
        {'ema': {'module': TENSORS, 'updates': 9}},
        {'model': {f'_orig_mod.{n}': t for n, t in TENSORS.items()}},
        {f'module._orig_mod.module.{n}': t for n, t in TENSORS.items()},
        {'model_state_dict': {f'module.{n}': t for n, t in TENSORS.items()}, 'lr': np.float32(1)},
    ),
)
def test_checkpoints_of_other_programs(content, tmp_path):
    torch.save(content, tmp_path / 'a.pth')
    tensors, _ = read_checkpoint(tmp_path / 'a.pth')
    assert list(tensors) == ['backbone.conv1.weight', 'cmp.0.weight']
    assert tensors['backbone.conv1.weight'].tolist() == [1, 1]


@pytest.mark.parametrize(
    'value', (np.array(['a'], dtype=object), np.datetime64('2026-01-01'), np.str_('x'))
)
def test_values_of_numpy_that_are_no_numbers(value, tmp_path):
    torch.save({'state_dict': TENSORS, 'value': value}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='a.pth: not a readable checkpoint'):
        read_checkpoint(tmp_path / 'a.pth')


class Items(torch.utils.data.Dataset):
    "What happens at an item is told by its number."

    def __getitem__(self, n):
        if n == 1:
            os.kill(os.getpid(), 9)
        if n == 2:
            raise RuntimeError('unable to allocate shared memory(shm) for file </torch_1>')
        if n == 3:
            raise RuntimeError('a fault of its own')
        if n == 4:
            raise ValueError('a.jpg: not a readable image')
        return n


@pytest.mark.parametrize(
    'item, kind, said',
    (
        (1, OSError, r'a process that reads \(--workers 1\) is lost'),
        (2, OSError, 'is lost: RuntimeError: unable to allocate shared memory'),
        (3, RuntimeError, 'a fault of its own'),
        (4, ValueError, 'a.jpg: not a readable image'),
    ),
)
def test_processes_that_read(item, kind, said):
    assert [b.tolist() for b in load_batches(Items(), [[0, 5], [6]], 8, 1)] == [[0, 5], [6]]
    with pytest.raises(kind, match=said):
        list(load_batches(Items(), [[0], [item]], 8, 1))


@pytest.mark.parametrize('encoding, likeness', (('cp1252', 'n-where×'), ('ascii', 'n-wherex')))
def test_any_terminal(run, encoding, likeness, tmp_path):
    environment = dict(os.environ, PYTHONIOENCODING=encoding, COLUMNS='80')
    done = run('logocap-tables', '--help', env=environment, encoding=encoding)
    assert done.returncode == 0 and 'usage' in done.stdout
    done = run('logocap-data', tmp_path / 'n−where×', env=environment, encoding=encoding)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert likeness in done.stderr


def test_results_on_standard_output(inside, tiny, tmp_path):
    for folder in ('a', 'b'):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(tmp_path / folder / 'x.png')
    (tmp_path / 'b/x.heif').touch()
    options = ('--weights', tiny, '--short-side', 64, '--no-flip-test', '--device', 'cpu')
    done = inside('logocap-predict', tmp_path, '-r', *options, '--out', '-')
    assert done.returncode == 0
    names = {result['file_name'] for result in json.loads(done.stdout)}
    assert names == {str(tmp_path / 'a/x.png'), str(tmp_path / 'b/x.png')}
    assert 'people of score' in done.stderr
    if 'HEIF' not in logocap.images.readable_formats():
        assert 'passed over: 1 .heif (HEIF, which' in done.stderr

    pattern = str(tmp_path / '?/x.png')
    again = inside('logocap-predict', pattern, *options, '--out', '-', '-q')
    assert again.stdout == done.stdout and again.stderr == ''
    (tmp_path / 'b/x.png').write_bytes(b'torn')
    done = inside('logocap-predict', pattern, *options, '--out', '-', '-q')
    assert done.returncode == 1 and len(json.loads(done.stdout))
    assert done.stderr.splitlines()[-1] == 'logocap-predict: 1 of 2 images left out'


def test_versions(inside):
    for name in ('logocap-predict', 'logocap-train', 'logocap-tables', 'logocap-export'):
        done = inside(name, '--version')
        assert done.returncode == 0 and done.stdout.startswith('logocap ')


PEOPLE = ('people-11', 'people-12', 'people-13')


def found_people(name, folder, ids):
    "A network, and its detections on images of a folder."
    model = LogoCap.from_pretrained(name).optimize()
    return model, detect_split(model, folder, ids, None, False, ('full',), 4)['full']


def test_people_count_from_a_good_score():
    "On every fifth drawn image, hardly another score would find people and nobody else as well."
    folder, losses = CocoFolder(ROOT / 'data/people', 'val'), []
    ids = folder.image_ids()[::5]
    for name in PEOPLE:
        model, found = found_people(name, folder, ids)
        scores, f1 = f1_curve(folder.coco, found, ids)
        kept = (scores >= model.least_score).sum()
        assert kept and model.knows == 'drawn people'
        losses.append(f1.max() - f1[kept - 1])
    assert max(losses) < 0.05, losses


@pytest.mark.slow
def test_from_which_score_people_count():
    "What a network's file says is what its detections on the drawn people give, in hundredths."
    folder = CocoFolder(ROOT / 'data/people', 'val')
    ids = folder.image_ids()
    for name in PEOPLE:
        model, found = found_people(name, folder, ids)
        assert abs(least_score(folder.coco, found, ids) - model.least_score) < 0.01, name
