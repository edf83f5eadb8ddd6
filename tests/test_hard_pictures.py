"Pictures of every kind and none: read, or named and skipped; and where the poses of a turned picture lie."
import json
import time
import zlib
from struct import pack
import numpy as np
import pytest
from PIL import Image
from conftest import LONG, ROOT
from test_commands import fails
from logocap.coco import read_image
from logocap.model import LogoCap
from logocap.predict import detect_split, predict_command

PART = 'pictures'
RNG = np.random.default_rng(0)
PAGE = Image.fromarray(RNG.integers(0, 255, (70, 90, 3), np.uint8))


def large_png(width, height):
    "A black 1-bit picture of any size, a few kB long."
    chunk = lambda kind, data: pack('>I', len(data)) + kind + data + pack('>I', zlib.crc32(kind + data))
    rows = zlib.compress(bytes(height * (1 + (width + 7) // 8)), 1)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', pack('>IIBBBBB', width, height, 1, 0, 0, 0, 0)) + chunk(b'IDAT', rows) + chunk(b'IEND', b'')


def oriented(n):
    exif = Image.Exif()
    exif[274] = n
    return exif


def good_pictures(d):
    "Pictures that are to be read."
    made = []
    def keep(image, name, **options):
        image.save(d/name, **options)
        made.append(d/name)
    for mode, name in (('L', 'grey.png'), ('1', 'bits.png'), ('LA', 'grey alpha.png'), ('RGBA', 'alpha.png'), ('P', 'palette.png'), ('CMYK', 'cmyk.jpg'), ('YCbCr', 'ycc.jpg'),
                       ('RGB', 'plain.webp'), ('RGB', 'plain.tif'), ('RGB', 'plain.bmp'), ('RGB', "it's \"a\" name.jpg"), ('RGB', 'Käse 写真 🙂.jpg')): keep(PAGE.convert(mode), name)
    keep(Image.fromarray(RNG.integers(0, 65536, (70, 90)).astype(np.uint16)), 'deep.png')
    keep(PAGE.convert('P'), 'moving.gif', save_all=True, append_images=[PAGE.rotate(90).convert('P')] * 3)
    for n in range(1, 9): keep(PAGE, f'exif{n}.jpg', exif=oriented(n))
    keep(PAGE, 'exif broken.jpg', exif=b'Exif\0\0MM\0*\0\0\0\xff')
    keep(Image.new('RGB', (1, 1)), '1x1.png')
    return made


def bad_pictures(d):
    "Pictures that are to be refused, by a word of the reason."
    PAGE.save(d/'whole.jpg')
    whole = (d/'whole.jpg').read_bytes()
    (d/'whole.jpg').unlink()
    made = {}
    for name, content, fault in (('empty.jpg', b'', 'not a readable image'), ('text.jpg', b'a text\n' * 99, 'not a readable image'),
                                 ('cut.jpg', whole[:len(whole) // 2], 'truncated'), ('head.jpg', whole[:20], 'not a readable image'),
                                 ('thin.png', large_png(1, 5000), 'more than 16 times'), ('bomb.png', large_png(20000, 20000), 'decompression bomb'),
                                 ('program.jpg', b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'not a readable image')):
        (d/name).write_bytes(content)
        made[d/name] = fault
    Image.fromarray(RNG.random((7, 9)).astype(np.float32)).save(d/'floats.tif')
    (d/'folder.jpg').mkdir()
    (d/'lost.jpg').symlink_to(d/'nowhere')
    return {**made, d/'floats.tif': 'gray levels', d/'folder.jpg': 'no such image', d/'lost.jpg': 'no such image'}


@pytest.fixture(scope='module')
def model(tiny): return LogoCap.from_pretrained(tiny)


def poses(model, picture): return model.predict(picture, short_side=64, flip_test=False, level='none')


def test_kinds_of_pictures(model, tmp_path, tried):
    for file in good_pictures(tmp_path):
        found = poses(model, file)
        assert len(found) and np.isfinite(found.keypoints).all() and np.isfinite(found.scores).all(), file
        tried(PART, 'kinds of readable pictures', 1, 'finite poses')
    for file, fault in bad_pictures(tmp_path).items():
        with pytest.raises((ValueError, FileNotFoundError), match=fault) as e: poses(model, file)
        assert '\n' not in str(e.value) and (fault.startswith('more') or str(file) in str(e.value))
        tried(PART, 'kinds of unreadable pictures', 1, 'one line')


def test_one_batch(run, inside, tiny, tmp_path, tried):
    "The command, on a folder with all of them."
    (tmp_path/'in').mkdir()
    good, bad = good_pictures(tmp_path/'in'), bad_pictures(tmp_path/'in')
    options = ('--weights', tiny, '--short-side', 64, '--no-flip-test', '--level', 'none', '--device', 'cpu', '--out', tmp_path/'poses.json')
    done = run('logocap-predict', tmp_path/'in', *options, '--draw', tmp_path/'drawn')
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith('logocap-predict: ')]
    assert len(told) == len(bad) + 1 and f'{len(bad)} of {len(good) + len(bad)} pictures left out' in told[-1]
    faults = json.loads((tmp_path/'poses.faults.json').read_text())
    assert {f['file_name'] for f in faults} == {f.name for f in bad} and all(set(f) == {'image_id', 'file_name', 'fault'} for f in faults)
    results = json.loads((tmp_path/'poses.json').read_text())
    assert {r['file_name'] for r in results} == {f.name for f in good} and len(list((tmp_path/'drawn').iterdir())) == len(good)
    before = (tmp_path/'poses.json').read_bytes()
    for name, fault, *more in (('cut.jpg', 'cut.jpg: not a readable image'), ('1x1.png', 'out of memory (', '--short-side', 3_200_000), ('1x1.png', "invalid number value: 'nan'", '--threshold', 'nan')):
        fails(inside('logocap-predict', tmp_path/'in'/name, *options, *more), fault, 'logocap-predict')
        assert (tmp_path/'poses.json').read_bytes() == before
    tried(PART, 'pictures of a folder in one command', len(good) + len(bad), 'the unreadable ones named, in the JSON too, the others done')


def test_a_folder_loses_a_picture(tiny, tmp_path, monkeypatch, tried):
    import logocap.predict
    (tmp_path/'in').mkdir()
    for n in range(3): PAGE.save(tmp_path/'in'/f'{n}.png')
    seen = logocap.predict.network_input
    def losing(image, *args, **kwargs):
        (tmp_path/'in/2.png').unlink(missing_ok=True)
        return seen(image, *args, **kwargs)
    monkeypatch.setattr(logocap.predict, 'network_input', losing)
    with pytest.raises(ValueError, match='1 of 3 pictures left out'):
        predict_command(images=[tmp_path/'in'], weights=tiny, out=tmp_path/'poses.json', short_side=64, flip_test=False, level='none', device='cpu')
    assert [f['file_name'] for f in json.loads((tmp_path/'poses.faults.json').read_text())] == ['2.png']
    tried(PART, 'folders that lose a picture while they are read', 1, 'named, the others done')


def test_turned_pictures(tmp_path, tried):
    "`predict`: as viewers show the picture; tables: as it is stored. With weights that find the drawn people."
    from logocap.coco import CocoFolder, example_people
    people, model = Image.open(ROOT/'data/people/val/000000000002.jpg'), LogoCap.from_pretrained()
    ways = {n: Image.Transpose(t) for n, t in ((2, 0), (3, 3), (4, 1), (5, 5), (6, 4), (7, 6), (8, 2))}
    predict = lambda picture: model.predict(picture, flip_test=False, level='none')
    for n, way in ways.items():
        people.save(tmp_path/f'{n}.png', exif=oriented(n))
        shown = np.asarray(people.transpose(way))
        assert (read_image(tmp_path/f'{n}.png', upright=True) == shown).all() and (read_image(tmp_path/f'{n}.png') == np.asarray(people)).all()
        a, b = predict(tmp_path/f'{n}.png'), predict(shown)
        assert len(a) and np.array_equal(a.keypoints, b.keypoints) and np.array_equal(a.scores, b.scores)
        tried(PART, 'EXIF orientations', 1, 'poses where viewers show the people; for tables, in stored pixels')
    data = example_people()
    data['images'] = [dict(id=n, file_name=name, width=people.width, height=people.height) for n, name in enumerate(('6.png', 'plain.png'), 1)]
    people.save(tmp_path/'plain.png')
    (tmp_path/'annotations').mkdir()
    (tmp_path/'annotations/person_keypoints_val2017.json').write_text(json.dumps(data))
    (tmp_path/'val2017').symlink_to(tmp_path)
    found = detect_split(model, CocoFolder(tmp_path), [1, 2], None, False, ('none',))['none']
    stored, plain = ([r['keypoints'] for r in found if r['image_id'] == n] for n in (1, 2))
    assert stored == plain and stored


def test_mutated_pictures(tmp_path, tried):
    sources = []
    for name, image in (('a.jpg', PAGE), ('a.png', PAGE), ('a.gif', PAGE.convert('P')), ('a.webp', PAGE), ('a.tif', PAGE), ('a.bmp', PAGE), ('a.ppm', PAGE), ('a.jp2', PAGE)):
        image.save(tmp_path/name)
        sources.append((tmp_path/name).read_bytes())
    for n in range(8000 if LONG else 240):
        data = bytearray(sources[n % len(sources)])
        for at in RNG.integers(0, min(len(data), 400) if n % 3 else len(data), RNG.integers(1, 9)): data[at] = RNG.integers(256)
        if n % 5 == 0: del data[RNG.integers(len(data)):]
        (tmp_path/'mutated').write_bytes(data)
        start, outcome = time.time(), 'read'
        try: pixels = read_image(tmp_path/'mutated', upright=True)
        except ValueError as e:
            assert str(e).startswith(f'{tmp_path/"mutated"}: not a readable image') and '\n' not in str(e)
            outcome = 'one line'
        else: assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        assert time.time() - start < 10
        tried(PART, 'mutated files of eight formats', 1, outcome)
