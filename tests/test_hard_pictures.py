"""Images of every kind and none: read, or named and skipped.

And where the poses of a turned image are.
"""

import json
import time
import zlib
from struct import pack
import numpy as np
import pytest
from PIL import Image
from conftest import LONG, ROOT
from test_commands import fails
import logocap.predict
from logocap.keypoints import example_people
from logocap.images import read_image
from logocap.coco import CocoFolder
from logocap.model import LogoCap
from logocap.predict import detect_split, predict_command

PART = 'pictures'
RNG = np.random.default_rng(0)
PAGE = Image.fromarray(RNG.integers(0, 255, (70, 90, 3), np.uint8))


def large_png(width, height):
    "A black 1-bit image of any size, a few kB long."

    def chunk(kind, data):
        return pack('>I', len(data)) + kind + data + pack('>I', zlib.crc32(kind + data))

    rows = zlib.compress(bytes(height * (1 + (width + 7) // 8)), 1)
    header = chunk(b'IHDR', pack('>IIBBBBB', width, height, 1, 0, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', rows) + chunk(b'IEND', b'')


def oriented(n):
    exif = Image.Exif()
    exif[274] = n
    return exif


MODES = {
    'grey.png': 'L',
    'bits.png': '1',
    'grey alpha.png': 'LA',
    'alpha.png': 'RGBA',
    'palette.png': 'P',
    'cmyk.jpg': 'CMYK',
    'ycc.jpg': 'YCbCr',
    'plain.webp': 'RGB',
    'plain.tif': 'RGB',
    'plain.bmp': 'RGB',
    "it's \"a\" name.jpg": 'RGB',
    'Käse 写真 🙂.jpg': 'RGB',
}


def good_images(folder):
    "Images that are to be read."
    made = []

    def keep(image, name, **options):
        image.save(folder / name, **options)
        made.append(folder / name)

    for name, mode in MODES.items():
        keep(PAGE.convert(mode), name)
    deep = RNG.integers(0, 65536, (70, 90)).astype(np.uint16)
    keep(Image.fromarray(deep), 'deep.png')
    frames = [PAGE.rotate(90).convert('P')] * 3
    keep(PAGE.convert('P'), 'moving.gif', save_all=True, append_images=frames)
    for n in range(1, 9):
        keep(PAGE, f'exif{n}.jpg', exif=oriented(n))
    keep(PAGE, 'exif broken.jpg', exif=b'Exif\0\0MM\0*\0\0\0\xff')
    keep(Image.new('RGB', (1, 1)), '1x1.png')
    return made


def bad_images(folder):
    "Images that are to be refused → a word of the reason."
    PAGE.save(folder / 'whole.jpg')
    whole = (folder / 'whole.jpg').read_bytes()
    (folder / 'whole.jpg').unlink()
    program = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n'
    contents = (
        ('empty.jpg', b'', 'not a readable image'),
        ('text.jpg', b'a text\n' * 99, 'not a readable image'),
        ('cut.jpg', whole[: len(whole) // 2], 'truncated'),
        ('head.jpg', whole[:20], 'not a readable image'),
        ('thin.png', large_png(1, 5000), 'more than 16 times'),
        ('bomb.png', large_png(20000, 20000), 'decompression bomb'),
        ('program.jpg', program, 'not a readable image'),
    )
    made = {}
    for name, content, fault in contents:
        (folder / name).write_bytes(content)
        made[folder / name] = fault
    Image.fromarray(RNG.random((7, 9)).astype(np.float32)).save(folder / 'floats.tif')
    (folder / 'folder.jpg').mkdir()
    (folder / 'lost.jpg').symlink_to(folder / 'nowhere')
    made[folder / 'floats.tif'] = 'gray levels'
    made[folder / 'folder.jpg'] = 'no such image'
    made[folder / 'lost.jpg'] = 'no such image'
    return made


@pytest.fixture(scope='module')
def model(tiny):
    return LogoCap.from_pretrained(tiny)


def poses(model, image):
    return model.predict(image, short_side=64, flip_test=False, level='none')


def test_readable_images(model, tmp_path, tried):
    for file in good_images(tmp_path):
        found = poses(model, file)
        assert len(found), file
        assert np.isfinite(found.keypoints).all() and np.isfinite(found.scores).all(), file
        tried(PART, 'kinds of readable pictures', 1, 'finite poses')


def test_unreadable_images(model, tmp_path, tried):
    for file, fault in bad_images(tmp_path).items():
        if file.is_dir():
            fault = 'no images there'
        with pytest.raises((ValueError, FileNotFoundError), match=fault) as e:
            poses(model, file)
        assert '\n' not in str(e.value)
        assert fault.startswith('more') or str(file) in str(e.value)
        tried(PART, 'kinds of unreadable pictures', 1, 'one line')


def test_one_batch(run, inside, tiny, tmp_path, tried):
    "The command, on a folder with all of them."
    (tmp_path / 'in').mkdir()
    good, bad = good_images(tmp_path / 'in'), bad_images(tmp_path / 'in')
    options = (
        '--weights',
        tiny,
        '--short-side',
        64,
        '--no-flip-test',
        '--level',
        'none',
        '--device',
        'cpu',
        '--out',
        tmp_path / 'poses.json',
    )
    done = run('logocap-predict', tmp_path / 'in', *options, '--draw', tmp_path / 'drawn')
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith('logocap-predict: ')]
    assert len(told) == len(bad) + 1
    assert f'{len(bad)} of {len(good) + len(bad)} images left out' in told[-1]

    faults = json.loads((tmp_path / 'poses.faults.json').read_text())
    assert {fault['file_name'] for fault in faults} == {file.name for file in bad}
    assert all(set(fault) == {'image_id', 'file_name', 'fault'} for fault in faults)
    results = json.loads((tmp_path / 'poses.json').read_text())
    assert {result['file_name'] for result in results} == {file.name for file in good}
    assert len(list((tmp_path / 'drawn').iterdir())) == len(good)

    before = (tmp_path / 'poses.json').read_bytes()
    cases = (
        ('cut.jpg', 'cut.jpg: not a readable image'),
        ('1x1.png', 'out of memory (', '--short-side', 3_200_000),
        ('1x1.png', "invalid number value: 'nan'", '--threshold', 'nan'),
    )
    for name, fault, *more in cases:
        done = inside('logocap-predict', tmp_path / 'in' / name, *options, *more)
        fails(done, fault, 'logocap-predict')
        assert (tmp_path / 'poses.json').read_bytes() == before
    outcome = 'the unreadable ones named, in the JSON too, the others done'
    tried(PART, 'pictures of a folder in one command', len(good) + len(bad), outcome)


def test_a_folder_loses_an_image(tiny, tmp_path, monkeypatch, tried):
    folder = tmp_path / 'in'
    folder.mkdir()
    for n in range(3):
        PAGE.save(folder / f'{n}.png')
    network_pixels = logocap.predict.network_pixels

    def losing(image, *args, **kwargs):
        (folder / '2.png').unlink(missing_ok=True)
        return network_pixels(image, *args, **kwargs)

    monkeypatch.setattr(logocap.predict, 'network_pixels', losing)
    with pytest.raises(ValueError, match='1 of 3 images left out'):
        predict_command(
            images=[folder],
            weights=tiny,
            out=tmp_path / 'poses.json',
            short_side=64,
            flip_test=False,
            level='none',
            device='cpu',
        )
    faults = json.loads((tmp_path / 'poses.faults.json').read_text())
    assert [fault['file_name'] for fault in faults] == ['2.png']
    what = 'folders that lose a picture while they are read'
    tried(PART, what, 1, 'named, the others done')


@pytest.fixture(scope='module')
def drawn():
    return Image.open(ROOT / 'data/people/val/000000000002.jpg')


@pytest.fixture(scope='module')
def trained():
    "Weights that find the drawn people."
    return LogoCap.from_pretrained()


@pytest.mark.parametrize('n, way', ((2, 0), (3, 3), (4, 1), (5, 5), (6, 4), (7, 6), (8, 2)))
def test_turned_images(n, way, drawn, trained, tmp_path, tried):
    "`predict` reads an image as viewers show it."
    file = tmp_path / f'{n}.png'
    drawn.save(file, exif=oriented(n))
    shown = np.asarray(drawn.transpose(Image.Transpose(way)))
    assert (read_image(file, upright=True) == shown).all()
    assert (read_image(file) == np.asarray(drawn)).all()
    a = trained.predict(file, flip_test=False, level='none')
    b = trained.predict(shown, flip_test=False, level='none')
    assert len(a)
    assert np.array_equal(a.keypoints, b.keypoints) and np.array_equal(a.scores, b.scores)
    outcome = 'poses where viewers show the people; for tables, in stored pixels'
    tried(PART, 'EXIF orientations', 1, outcome)


def test_turned_images_of_a_folder(drawn, trained, tmp_path):
    "Tables read an image as it is stored."
    drawn.save(tmp_path / '6.png', exif=oriented(6))
    drawn.save(tmp_path / 'plain.png')
    data = example_people()
    data['images'] = []
    for n, name in enumerate(('6.png', 'plain.png'), 1):
        image = dict(id=n, file_name=name, width=drawn.width, height=drawn.height)
        data['images'].append(image)
    (tmp_path / 'annotations').mkdir()
    file = tmp_path / 'annotations/person_keypoints_val2017.json'
    file.write_text(json.dumps(data))
    (tmp_path / 'val2017').symlink_to(tmp_path)
    folder = CocoFolder(tmp_path)
    found = detect_split(trained, folder, [1, 2], None, False, ('none',))['none']
    stored = [result['keypoints'] for result in found if result['image_id'] == 1]
    plain = [result['keypoints'] for result in found if result['image_id'] == 2]
    assert stored == plain and stored


def mutated(data, n):
    "Some bytes changed, near the beginning two times of three; every fifth one is cut off."
    data = bytearray(data)
    end = min(len(data), 400) if n % 3 else len(data)
    for at in RNG.integers(0, end, RNG.integers(1, 9)):
        data[at] = RNG.integers(256)
    if n % 5 == 0:
        del data[RNG.integers(len(data)) :]
    return data


def test_mutated_images(tmp_path, tried):
    sources = []
    for suffix in ('jpg', 'png', 'gif', 'webp', 'tif', 'bmp', 'ppm', 'jp2'):
        image = PAGE.convert('P') if suffix == 'gif' else PAGE
        image.save(tmp_path / f'a.{suffix}')
        sources.append((tmp_path / f'a.{suffix}').read_bytes())
    file = tmp_path / 'mutated'
    for n in range(8000 if LONG else 240):
        file.write_bytes(mutated(sources[n % len(sources)], n))
        start, outcome = time.process_time(), 'read'
        try:
            pixels = read_image(file, upright=True)
        except ValueError as e:
            assert str(e).startswith(f'{file}: not a readable image') and '\n' not in str(e)
            outcome = 'one line'
        else:
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        assert time.process_time() - start < 10
        tried(PART, 'mutated files of eight formats', 1, outcome)
