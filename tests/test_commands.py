"The installed commands, as a user types them."

import json
import re
import subprocess
import sys
import numpy as np
import pytest
from PIL import Image
from conftest import ROOT
from logocap.images import read_image


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A COCO-layout folder with two drawn pages, one of them empty."
    from logocap.keypoints import example_people

    root = tmp_path_factory.mktemp('coco')
    data = example_people()
    data['images'].append(dict(id=2, file_name='empty.png', width=200, height=300))
    (root / 'annotations').mkdir()
    (root / 'val2017').mkdir()
    (root / 'annotations/person_keypoints_val2017.json').write_text(json.dumps(data))
    for i in data['images']:
        Image.new('RGB', (i['width'], i['height']), 'white').save(root / 'val2017' / i['file_name'])
    return root


def fails(done, fault, command):
    "Exit status 1, one line that names the fault, no traceback."
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1 and len(lines) == 1, done.stderr
    assert lines[0].startswith(f'{command}: ') and fault in lines[0]


def test_tables(run, folder, tiny, tmp_path):
    data = ('--table', 1, '--data', folder, '--split', 'val2017', '--weights', tiny)
    detection = ('--short-side', 64, '--no-flip-test', '--all-images', '--device', 'cpu')
    done = run('logocap-tables', *data, *detection, '--out', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    assert 'Emp. Bound' in done.stdout and '2 images of val2017 (all)' in done.stdout
    made = json.loads((tmp_path / 'out/table1.json').read_text())
    assert list(made['rows']) == ['Baseline', 'Emp. Bound', 'LOGO-CAP']
    assert all(list(row) == ['AP', 'AP50', 'AP75', 'APM', 'APL'] for row in made['rows'].values())
    record = made['provenance']
    assert record['options'] == dict(short_side=64, flip_test=False, all_images=True, window=11)
    assert record['data']['images'] == 2
    assert len(record['weights'][0]['sha256']) == 64
    assert record['seconds'] > 0
    assert (tmp_path / 'out/table1.md').read_text().count('|') > 40
    assert (tmp_path / 'out/table1.csv').read_text().startswith(',"Baseline, paper"')


def test_tables_reference(run, parity, tmp_path):
    data = ('--data', parity / 'coco', '--weights', parity / 'w8.pth.tar')
    underscores = ('--short_side=256', '--no-flip_test')
    done = run('logocap-tables', *data, *underscores, '--out', tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / 'table1.json').read_text())['rows']
    assert abs(rows['Baseline']['AP'] - 57.3) < 0.3 and abs(rows['LOGO-CAP']['AP'] - 81.0) < 0.3
    assert rows['Baseline']['APM'] == -100


@pytest.mark.parametrize(
    'spoil, fault',
    (
        (dict(data='nowhere'), 'nowhere: no such folder'),
        (dict(split='test'), "no annotations of split 'test'"),
        (dict(weights='none.pth'), 'none.pth: no such checkpoint'),
        (dict(table='7'), 'table 7'),
        (dict(short_side='100'), 'multiple of 32'),
        (dict(short_side='wide'), 'wide'),
        (dict(short_side='0'), 'multiple of 32'),
        (dict(batch_size='-1'), 'batch of -1'),
        (dict(device='abacus'), "device 'abacus'"),
        (dict(device='meta'), "device 'meta'"),
        (dict(nonsense='1'), '--nonsense'),
    ),
)
def test_tables_bad_input(inside, folder, tiny, tmp_path, spoil, fault):
    options = dict(data=folder, weights=tiny, short_side=64, device='cpu', out=tmp_path / 'out')
    words = []
    for name, value in dict(options, **spoil).items():
        words += [f'--{name}', value]
    fails(inside('logocap-tables', *words), fault, 'logocap-tables')
    assert not (tmp_path / 'out').exists()


def test_tables_without_weights(run, folder):
    from logocap.checkpoints import embedded_weights

    if embedded_weights():
        pytest.skip('this copy has weights of its own')
    fails(run('logocap-tables', '--data', folder), 'no weights', 'logocap-tables')


def test_predict(run, parity, tmp_path):
    images = sorted((parity / 'coco/val2017').glob('*.jpg'))[:2]
    network = ('--weights', parity / 'w8.pth.tar', '--short-side', 256, '--no-flip-test')
    out = ('--out', tmp_path / 'poses.json', '--draw', tmp_path / 'drawn')
    done = run('logocap-predict', *images, *network, *out)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / 'poses.json').read_text())
    assert {r['image_id'] for r in results} == {int(p.stem) for p in images}
    assert {r['file_name'] for r in results} == {p.name for p in images}
    from logocap.coco import CocoFolder

    assert len(CocoFolder(parity / 'coco').coco.loadRes(results).anns) == len(results)
    for p in images:
        with Image.open(p) as before, Image.open(tmp_path / 'drawn' / f'{p.stem}.png') as after:
            assert before.size == after.size
            # skeletons
            assert (np.asarray(before.convert('RGB')) != np.asarray(after.convert('RGB'))).any()


def test_predict_in_batches(inside, tiny, tmp_path):
    "One image at a time, or four: the same results in the same order."
    (tmp_path / 'in').mkdir()
    for n in range(7):
        width = 128 if n % 3 == 1 else 64
        noise = np.random.default_rng(n).integers(0, 256, (64, width, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f'in/{n}.png')

    def predict(name, *options):
        network = ('--weights', tiny, '--short-side', 64, '--level', 'none', '--device', 'cpu')
        out = ('--out', tmp_path / f'{name}.json')
        return inside('logocap-predict', tmp_path / 'in', *network, *options, *out)

    def read(name):
        return json.loads((tmp_path / f'{name}.json').read_text())

    for size in (1, 4):
        done = predict(size, '--batch-size', size)
        assert done.returncode == 0 and ' results on 7 images, ' in done.stdout
    single, batched = read(1), read(4)
    for name in ('image_id', 'file_name'):
        assert [r[name] for r in single] == [r[name] for r in batched]
    assert len(single) > 7
    for a, b in zip(single, batched):
        assert np.allclose(a['keypoints'], b['keypoints'], rtol=1e-4, atol=0.01)
        assert np.allclose(a['score'], b['score'], rtol=1e-4, atol=0.01)
    for dtype in ('bfloat16', 'float32'):
        assert predict(dtype, '--dtype', dtype).returncode == 0
    assert read('float32') == batched
    assert read('bfloat16') != batched
    done = predict('none', '--dtype', 'float16')
    fails(done, "dtype 'float16': there are float32, bfloat16", 'logocap-predict')
    done = predict('none', '--batch-size', 0)
    fails(done, 'batch of 0 images', 'logocap-predict')


@pytest.mark.parametrize(
    'content, fault',
    (
        (None, 'no such image'),
        (b'not a picture', 'not a readable image'),
        (b'', 'not a readable image'),
    ),
)
def test_predict_bad_image(inside, tiny, tmp_path, content, fault):
    bad, out = tmp_path / 'bad.jpg', tmp_path / 'poses.json'
    if content is not None:
        bad.write_bytes(content)
    out.write_text('kept')
    network = ('--weights', tiny, '--short-side', 64, '--device', 'cpu')
    done = inside('logocap-predict', bad, *network, '--out', out)
    fails(done, f'bad.jpg: {fault}', 'logocap-predict')
    assert out.read_text() == 'kept'


def test_damaged_image_is_one_line(inside, tiny, tmp_path, recwarn):
    "Pillow also warns of what it finds in a damaged TIFF, with its own path and line."
    Image.new('RGB', (90, 70)).save(tmp_path / 'torn.tif')
    whole = (tmp_path / 'torn.tif').read_bytes()
    (tmp_path / 'torn.tif').write_bytes(whole[:60])
    with pytest.warns(UserWarning), pytest.raises(ValueError, match='not a readable image'):
        read_image(tmp_path / 'torn.tif')
    recwarn.clear()
    network = ('--weights', tiny, '--short-side', 64, '--device', 'cpu')
    out = ('--out', tmp_path / 'poses.json')
    done = inside('logocap-predict', tmp_path / 'torn.tif', *network, *out)
    fails(done, 'torn.tif: not a readable image', 'logocap-predict')
    assert not recwarn.list


def test_output_is_checked_before_the_work(inside, tiny, folder, tmp_path):
    (tmp_path / 'file').write_text('')
    predict = ('logocap-predict', folder / 'val2017/empty.png', '--weights', tiny)
    done = inside(*predict, '--out', tmp_path / 'file/poses.json')
    fails(done, 'file: a file, not a folder', 'logocap-predict')
    done = inside(*predict, '--out', tmp_path)
    fails(done, 'a folder, not a file', 'logocap-predict')
    tables = ('logocap-tables', '--data', folder, '--weights', tiny)
    done = inside(*tables, '--out', tmp_path / 'file')
    fails(done, 'file: a file, not a folder', 'logocap-tables')
    assert [p.name for p in tmp_path.iterdir()] == ['file']


def test_error_in_a_reading_process_is_one_line(run, tiny, folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / 'coco')
    (tmp_path / 'coco/val2017/blank.png').write_bytes(b'torn')
    data = ('--data', tmp_path / 'coco', '--weights', tiny, '--short-side', 64)
    rest = ('--workers', 1, '--device', 'cpu', '--out', tmp_path / 'out')
    done = run('logocap-tables', *data, *rest)
    fails(done, 'blank.png: not a readable image', 'logocap-tables')
    assert not (tmp_path / 'out').exists()


def test_truncated_checkpoint(run, tiny, tmp_path):
    torn = tmp_path / 'torn.safetensors'
    torn.write_bytes(tiny.read_bytes()[:5000])
    Image.new('RGB', (90, 70)).save(tmp_path / 'a.png')
    done = run('logocap-predict', tmp_path / 'a.png', '--weights', torn)
    fails(done, 'torn.safetensors: not a readable safetensors file', 'logocap-predict')


NAMES = ('data', 'download', 'export', 'predict', 'speed', 'tables', 'train')


@pytest.mark.parametrize('name', NAMES)
def test_help_comes_before_imports(name):
    "Help and wrong options need neither PyTorch nor the package."
    code = f'''
import sys
import logocap_commands
sys.argv = ['logocap-{name}', *sys.argv[1:]]
try:
    logocap_commands.{name}()
finally:
    assert not {{'torch', 'numpy', 'logocap'}} & set(sys.modules)
'''

    def said(*words):
        return subprocess.run(
            [sys.executable, '-c', code, *words], capture_output=True, text=True, timeout=300
        )

    done = said('--help')
    assert done.returncode == 0 and f'usage: logocap-{name}' in done.stdout, done.stderr
    assert '_' not in ''.join(re.findall(r'--[\w-]+', done.stdout))  # one spelling
    named = 'Names of weights: people-11' in done.stdout
    assert named == ('--weights' in done.stdout)
    fails(said('a', '--nonsense', '1'), '--nonsense', f'logocap-{name}')


def test_every_command_is_installed():
    settings = (ROOT / 'settings.ini').read_text(encoding='utf-8')
    for name in NAMES:
        assert f'logocap-{name}=logocap_commands:{name}\n' in settings


def test_training_imports_little():
    "A model can be built and trained on with torch, NumPy and Pillow alone."
    code = '''
import sys
more = "fastcore matplotlib pycocotools tqdm safetensors nbdev msgspec pandas"
for name in more.split():
    sys.modules[name] = None
import torch
import logocap.training
from logocap.model import LogoCap
LogoCap(4, 8, 8, 4, (12, 10, 8), 3)(torch.zeros(1, 3, 64, 64))["poses"].sum().backward()
'''
    subprocess.run([sys.executable, '-c', code], check=True, timeout=300)
