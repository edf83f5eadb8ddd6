"The installed commands, as a user types them."
import json
import sys
import numpy as np
import pytest
from PIL import Image
from logocap.coco import read_image


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A COCO-layout folder with two drawn pages, one of them empty."
    from logocap.coco import example_people
    root = tmp_path_factory.mktemp('coco')
    data = example_people()
    data['images'].append(dict(id=2, file_name='empty.png', width=200, height=300))
    (root/'annotations').mkdir()
    (root/'val2017').mkdir()
    (root/'annotations/person_keypoints_val2017.json').write_text(json.dumps(data))
    for i in data['images']: Image.new('RGB', (i['width'], i['height']), 'white').save(root/'val2017'/i['file_name'])
    return root


def fails(done, fault, command):
    "Exit status 1, one line that names the fault, no traceback."
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1 and len(lines) == 1, done.stderr
    assert lines[0].startswith(f'{command}: ') and fault in lines[0]


def test_tables(run, folder, tiny, tmp_path):
    done = run('logocap-tables', '--table', 1, '--data', folder, '--split', 'val2017', '--weights', tiny, '--short-side', 64, '--no-flip-test',
               '--all-images', '--device', 'cpu', '--out', tmp_path/'out')
    assert done.returncode == 0, done.stderr
    assert 'Emp. Bound' in done.stdout and '2 images of val2017 (all)' in done.stdout
    made = json.loads((tmp_path/'out/table1.json').read_text())
    assert list(made['rows']) == ['Baseline', 'Emp. Bound', 'LOGO-CAP']
    assert all(list(row) == ['AP', 'AP50', 'AP75', 'APM', 'APL'] for row in made['rows'].values())
    record = made['provenance']
    assert record['options'] == dict(short_side=64, flip_test=False, all_images=True, window=11)
    assert record['data']['images'] == 2 and len(record['weights'][0]['sha256']) == 64 and record['seconds'] > 0
    assert (tmp_path/'out/table1.md').read_text().count('|') > 40 and (tmp_path/'out/table1.csv').read_text().startswith(',"Baseline, paper"')


def test_tables_reference(run, parity, tmp_path):
    done = run('logocap-tables', '--data', parity/'coco', '--weights', parity/'w8.pth.tar', '--short_side=256', '--no-flip_test', '--out', tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path/'table1.json').read_text())['rows']
    assert abs(rows['Baseline']['AP'] - 57.3) < .3 and abs(rows['LOGO-CAP']['AP'] - 81.0) < .3
    assert rows['Baseline']['APM'] == -100


@pytest.mark.parametrize('spoil, fault', (
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
    (dict(nonsense='1'), '--nonsense')))
def test_tables_bad_input(inside, folder, tiny, tmp_path, spoil, fault):
    options = {**dict(data=folder, weights=tiny, short_side=64, device='cpu', out=tmp_path/'out'), **spoil}
    fails(inside('logocap-tables', *(w for k, v in options.items() for w in (f'--{k}', v))), fault, 'logocap-tables')
    assert not (tmp_path/'out').exists()


def test_tables_without_weights(run, folder): 
    from logocap.hrnet import embedded_weights
    if embedded_weights(): pytest.skip('this copy has weights of its own')
    fails(run('logocap-tables', '--data', folder), 'no weights', 'logocap-tables')


def test_predict(run, parity, tmp_path):
    pictures = sorted((parity/'coco/val2017').glob('*.jpg'))[:2]
    done = run('logocap-predict', *pictures, '--weights', parity/'w8.pth.tar', '--short-side', 256, '--no-flip-test', '--out', tmp_path/'poses.json', '--draw', tmp_path/'drawn')
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path/'poses.json').read_text())
    assert {r['image_id'] for r in results} == {int(p.stem) for p in pictures} and {r['file_name'] for r in results} == {p.name for p in pictures}
    from logocap.coco import CocoFolder
    assert len(CocoFolder(parity/'coco').coco.loadRes(results).anns) == len(results)
    for p in pictures:
        with Image.open(p) as before, Image.open(tmp_path/'drawn'/f'{p.stem}.png') as after:
            assert before.size == after.size
            assert (np.asarray(before.convert('RGB')) != np.asarray(after.convert('RGB'))).any()  # skeletons


def test_predict_in_batches(inside, tiny, tmp_path):
    "One picture at a time, or four: the same results in the same order."
    (tmp_path/'in').mkdir()
    for n in range(7): Image.fromarray(np.random.default_rng(n).integers(0, 256, (64, 64 + 64 * (n % 3 == 1), 3), np.uint8)).save(tmp_path/f'in/{n}.png')
    made = []
    for size in (1, 4):
        done = inside('logocap-predict', tmp_path/'in', '--weights', tiny, '--short-side', 64, '--level', 'none', '--batch-size', size, '--device', 'cpu', '--out', tmp_path/f'{size}.json')
        assert done.returncode == 0 and ' results on 7 images, ' in done.stdout
        made.append(json.loads((tmp_path/f'{size}.json').read_text()))
    assert [(r['image_id'], r['file_name']) for r in made[0]] == [(r['image_id'], r['file_name']) for r in made[1]] and len(made[0]) > 7
    for a, b in zip(*made): assert np.allclose([*a['keypoints'], a['score']], [*b['keypoints'], b['score']], rtol=1e-4, atol=.01)
    for dtype in ('bfloat16', 'float32'): assert inside('logocap-predict', tmp_path/'in', '--weights', tiny, '--short-side', 64, '--level', 'none', '--dtype', dtype, '--device', 'cpu', '--out', tmp_path/f'{dtype}.json').returncode == 0
    assert json.loads((tmp_path/'float32.json').read_text()) == made[1] != json.loads((tmp_path/'bfloat16.json').read_text())
    fails(inside('logocap-predict', tmp_path/'in', '--weights', tiny, '--dtype', 'float16', '--out', tmp_path/'none.json'), "dtype 'float16': there are float32, bfloat16", 'logocap-predict')
    fails(inside('logocap-predict', tmp_path/'in', '--weights', tiny, '--batch-size', 0, '--out', tmp_path/'none.json'), 'batch of 0 images', 'logocap-predict')


@pytest.mark.parametrize('content, fault', ((None, 'no such image'), (b'not a picture', 'not a readable image'), (b'', 'not a readable image')))
def test_predict_bad_picture(inside, tiny, tmp_path, content, fault):
    bad, out = tmp_path/'bad.jpg', tmp_path/'poses.json'
    if content is not None: bad.write_bytes(content)
    out.write_text('kept')
    fails(inside('logocap-predict', bad, '--weights', tiny, '--short-side', 64, '--device', 'cpu', '--out', out), f'bad.jpg: {fault}', 'logocap-predict')
    assert out.read_text() == 'kept'


def test_damaged_picture_is_one_line(inside, tiny, tmp_path, recwarn):
    "Pillow also warns of what it finds in a damaged TIFF, with its own path and line."
    Image.new('RGB', (90, 70)).save(tmp_path/'torn.tif')
    whole = (tmp_path/'torn.tif').read_bytes()
    (tmp_path/'torn.tif').write_bytes(whole[:60])
    with pytest.warns(UserWarning), pytest.raises(ValueError, match='not a readable image'): read_image(tmp_path/'torn.tif')
    recwarn.clear()
    fails(inside('logocap-predict', tmp_path/'torn.tif', '--weights', tiny, '--short-side', 64, '--device', 'cpu', '--out', tmp_path/'poses.json'), 'torn.tif: not a readable image', 'logocap-predict')
    assert not recwarn.list


def test_output_is_checked_before_the_work(inside, tiny, folder, tmp_path):
    (tmp_path/'file').write_text('')
    picture = folder/'val2017/empty.png'
    fails(inside('logocap-predict', picture, '--weights', tiny, '--out', tmp_path/'file/poses.json'), 'file: a file, not a folder', 'logocap-predict')
    fails(inside('logocap-predict', picture, '--weights', tiny, '--out', tmp_path), 'a folder, not a file', 'logocap-predict')
    fails(inside('logocap-tables', '--data', folder, '--weights', tiny, '--out', tmp_path/'file'), 'file: a file, not a folder', 'logocap-tables')
    assert [p.name for p in tmp_path.iterdir()] == ['file']


def test_error_in_a_reading_process_is_one_line(run, tiny, folder, tmp_path):
    import shutil
    shutil.copytree(folder, tmp_path/'coco')
    (tmp_path/'coco/val2017/blank.png').write_bytes(b'torn')
    fails(run('logocap-tables', '--data', tmp_path/'coco', '--weights', tiny, '--short-side', 64, '--workers', 1, '--device', 'cpu', '--out', tmp_path/'out'),
          'blank.png: not a readable image', 'logocap-tables')
    assert not (tmp_path/'out').exists()


def test_truncated_checkpoint(run, tiny, tmp_path):
    torn = tmp_path/'torn.safetensors'
    torn.write_bytes(tiny.read_bytes()[:5000])
    Image.new('RGB', (90, 70)).save(tmp_path/'a.png')
    fails(run('logocap-predict', tmp_path/'a.png', '--weights', torn), 'torn.safetensors: not a readable safetensors file', 'logocap-predict')


@pytest.mark.parametrize('command', ('logocap-tables', 'logocap-predict'))
def test_help(run, command):
    done = run(command, '--help')
    assert done.returncode == 0 and 'default' in done.stdout and '--weights' in done.stdout


def test_training_imports_little():
    "A model can be built and trained on with torch, NumPy and Pillow alone."
    import subprocess
    code = ('import sys\nfor name in ("fastcore", "matplotlib", "pycocotools", "tqdm", "safetensors", "nbdev"): sys.modules[name] = None\n'
            'import torch\nfrom logocap.model import LogoCap\n'
            'LogoCap(4, 8, 8, 4, (12, 10, 8), 3)(torch.zeros(1, 3, 64, 64))["poses"].sum().backward()')
    subprocess.run([sys.executable, '-c', code], check=True, timeout=120)
