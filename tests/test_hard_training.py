"Training that goes wrong: numbers that are not finite, memory that runs out."

import json
from dataclasses import replace
import pytest
import torch
from PIL import Image
from logocap.keypoints import example_people
from logocap.model import LogoCap
from logocap.training import (
    PRESETS,
    CocoSamples,
    DrawnSamples,
    explained,
    load_checkpoint,
    save_checkpoint,
    train,
)
import logocap.training

PART = 'training faults'
TINY = replace(
    PRESETS['people'],
    widths=dict(width=4, c1=8, c2=16, c3=4, cmp_widths=(16, 12, 8), k=4),
    size=64,
    batch_size=2,
    hardest=1e6,
)


class Poisoned(DrawnSamples):
    "From the fourth of six steps on, people's places are not numbers."

    def __getitem__(self, key):
        sample = super().__getitem__(key)
        return (
            dict(sample, people=torch.where(sample['people'] > 0, torch.nan, 0.0))
            if key[2] >= 0.5
            else sample
        )


@pytest.mark.parametrize(
    'samples, name, value',
    ((Poisoned, '', 'nan'), (DrawnSamples, 'kam', 'inf'), (DrawnSamples, 'offsets', 'nan')),
)
def test_loss_is_not_finite(samples, name, value, tmp_path, monkeypatch, tried):
    losses, calls = logocap.training.total_loss, []

    def spoilt(*args, **kwargs):
        "From the fourth step on, one of the losses is not finite."
        calls.append(1)
        found = losses(*args, **kwargs)
        spoil = {
            k: v + float(value) for k, v in found.items() if len(calls) > 3 and k in (name, 'total')
        }
        return dict(found, **spoil)

    if name:
        monkeypatch.setattr(logocap.training, 'total_loss', spoilt)
    with pytest.raises(ValueError) as e:
        train(
            samples(TINY, seed=5, length=64), TINY, tmp_path, 6, seed=5, device='cpu', save_every=1
        )
    text = str(e.value)
    assert text.startswith(f'step 4: the loss {name}')
    assert f' is {value} on drawn image ' in text
    assert text.count('of series 5') == 2
    assert 'the last checkpoint stays' in text
    saved = torch.load(tmp_path / 'checkpoint.pt', weights_only=True)
    assert saved['step'] == 3
    assert all(t.isfinite().all() for t in saved['state_dict'].values())
    assert not (tmp_path / 'model.safetensors').exists()
    tried(
        PART,
        'losses that are not finite',
        1,
        'step, loss and pictures named before anything is written; the last checkpoint stays',
    )


def test_divergence(tmp_path, tried):
    "Weights that are no longer finite are never saved."
    try:
        train(
            DrawnSamples(TINY, seed=5, length=64),
            replace(TINY, lr=1e30, warmup=0),
            tmp_path,
            8,
            seed=5,
            device='cpu',
            save_every=1,
        )
    except ValueError as e:
        assert str(e).startswith('step '), e
        assert 'the loss' in str(e) or 'no longer finite' in str(e), e
    else:
        assert False, 'training survived a learning rate of 1e30'
    if (tmp_path / 'checkpoint.pt').exists():
        assert all(
            t.isfinite().all()
            for t in torch.load(tmp_path / 'checkpoint.pt', weights_only=True)[
                'state_dict'
            ].values()
        )
    tried(
        PART,
        'learning rates of 1e30',
        1,
        'the run ends; weights that are not finite are never saved',
    )


@pytest.mark.parametrize('name', ('cmp.9.bias', 'backbone.bn1.running_var', None))
def test_what_is_not_finite_is_not_saved(name, tmp_path, tried):
    model = LogoCap(**TINY.widths)
    optimizer = torch.optim.Adam(model.parameters())
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    save_checkpoint(tmp_path / 'checkpoint.pt', model, optimizer, 1, 0.0)
    before = (tmp_path / 'checkpoint.pt').read_bytes()
    if name:
        model.state_dict()[name].view(-1)[0] = torch.nan
    else:
        next(iter(optimizer.state.values()))['exp_avg_sq'].view(-1)[0] = torch.inf
    with pytest.raises(
        ValueError, match=f'step 2: tensor {name or "of the optimizer"} is no longer finite'
    ):
        save_checkpoint(tmp_path / 'checkpoint.pt', model, optimizer, 2, 0.0)
    assert (tmp_path / 'checkpoint.pt').read_bytes() == before
    assert load_checkpoint(
        tmp_path / 'checkpoint.pt',
        LogoCap(**TINY.widths),
        torch.optim.Adam(LogoCap(**TINY.widths).parameters()),
    ) == (1, 0.0)
    tried(
        PART,
        'weights and optimizer states that are not finite',
        1,
        'not saved; the last checkpoint stays',
    )


@pytest.mark.parametrize(
    'fault',
    (
        torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB'),
        MemoryError(),
        RuntimeError(
            """[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory:
            you tried to allocate 8 bytes"""
        ),
    ),
)
def test_out_of_memory(fault, tmp_path, monkeypatch, tried):
    def full(*args):
        raise fault

    monkeypatch.setattr(logocap.training, 'one_step', full)
    with pytest.raises(
        ValueError,
        match='step 1: out of memory with 2 images of 64 px at a time: '
        'try --batch-size 1, or --accumulate 2',
    ):
        train(DrawnSamples(TINY, seed=5, length=64), TINY, tmp_path, 6, seed=5, device='cpu')
    with pytest.raises(ValueError, match='try a smaller --size'):
        with explained(1, TINY, 2, 1):
            raise fault
    tried(
        PART,
        'out of memory, as CUDA, the CPU and Python say it (raised by hand)',
        1,
        'one line with the batch size to try',
    )


def test_other_faults_are_not_explained_away():
    for fault, world in (
        (RuntimeError('shapes differ'), 2),
        (RuntimeError('gloo: Connection closed by peer'), 1),
        (KeyError('x'), 2),
    ):
        with pytest.raises(type(fault), match=str(fault).strip("'")):
            with explained(1, TINY, 1, world):
                raise fault
    with pytest.raises(ConnectionError, match='another process of this run is gone'):
        with explained(1, TINY, 1, 2):
            raise RuntimeError('[gloo/transport/tcp/pair.cc:547] Connection closed by peer')


@pytest.mark.parametrize(
    'name, content, fault',
    (
        ('checkpoint.pt', b'', 'an empty file'),
        ('checkpoint.pt', b'torn', 'not a readable checkpoint'),
        ('recipe.json', b'{', 'not the record of a run'),
        ('recipe.json', b'[1]', 'not the record of a run'),
        ('recipe.json', b'\xff', 'not the record of a run'),
    ),
)
def test_torn_files_of_a_run(name, content, fault, tmp_path, tried):
    (tmp_path / 'checkpoint.pt').touch()  # without one there is no run to go on with
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f'{name}: .*{fault}'):
        train(DrawnSamples(TINY, seed=5, length=64), TINY, tmp_path, 1, seed=5, device='cpu')
    tried(PART, 'torn files in the folder of a run', 1, 'one line')


def test_torn_log(tmp_path):
    for n in (1, 2):
        (tmp_path / 'log.jsonl').write_bytes(b'{"step": 0}\n{"x": {"step": 1}\n{"ste\xff\n7\n')
        train(DrawnSamples(TINY, seed=5, length=64), TINY, tmp_path, 1, seed=5, device='cpu')
        assert [line[:9] for line in (tmp_path / 'log.jsonl').read_text().splitlines()][:1] == [
            '{"step": '
        ]


def test_bad_training_picture_is_named(tmp_path):
    from logocap.coco import CocoFolder

    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'train2017').mkdir()
    (tmp_path / 'annotations/person_keypoints_train2017.json').write_text(
        json.dumps(example_people())
    )
    samples = CocoSamples(CocoFolder(tmp_path, 'train2017'), TINY)
    for size, fault in (
        ((256, 320), 'blank.png: its size is not the 320×256 px'),
        (None, 'blank.png: not a readable image'),
    ):
        if size:
            Image.new('RGB', size).save(tmp_path / 'train2017/blank.png')
        else:
            (tmp_path / 'train2017/blank.png').write_bytes(b'torn')
        with pytest.raises(ValueError, match=fault):
            samples[0, 0, 0.0]
    assert samples.name((0, 0, 0.0)) == 'blank.png'


def test_a_failed_start_is_no_run(tmp_path):
    "A batch larger than the data ends before the first step; the corrected recipe may begin."
    for name, content in (('log.jsonl', '{"step": 7}\n'), ('recipe.json', '{"size": 7')):
        (tmp_path / name).write_text(content)
    too_large = replace(TINY, batch_size=65)
    samples = DrawnSamples(TINY, seed=5, length=64)
    with pytest.raises(ValueError, match='64 images do not fill a batch of 65'):
        train(samples, too_large, tmp_path, 1, seed=5, device='cpu')
    train(samples, TINY, tmp_path, 1, seed=5, device='cpu')
    assert (tmp_path / 'model.safetensors').is_file()
    with pytest.raises(ValueError, match='was begun with batch_size'):
        train(samples, too_large, tmp_path, 1, seed=5, device='cpu')


@pytest.mark.parametrize('what', ('crowds', 'unlabeled', 'nobody'))
@pytest.mark.parametrize('role', ('--data', '--val-data'))
def test_nobody_to_learn_from(what, role, tmp_path, inside):
    "One line that names the file before the first step."
    data = example_people()
    for a in data['annotations']:
        if what == 'crowds':
            a['iscrowd'] = 1
            a['segmentation'] = [[10, 10, 90, 10, 90, 90]]
        else:
            a.update(num_keypoints=0, keypoints=[0] * 51)
    if what == 'nobody':
        data['annotations'] = []
    file = tmp_path / 'annotations/person_keypoints_val.json'
    file.parent.mkdir()
    file.write_text(json.dumps(data))
    splits = ('--split', 'val', '--val-split', 'val')
    done = inside('logocap-train', role, tmp_path, *splits, '--out', tmp_path / 'run')
    assert done.returncode == 1 and not (tmp_path / 'run').exists()
    assert done.stderr == f'logocap-train: {file}: no image with annotated people\n'


def test_a_layout_of_ones_own(tmp_path, inside):
    "Trained and validated on an annotation file and a folder; the image without people learned."
    data = example_people()
    data['images'].append(dict(data['images'][0], id=2, file_name='negative.png'))
    del data['annotations'][0]['segmentation']
    (tmp_path / 'labels.json').write_text(json.dumps(data))
    (tmp_path / 'in').mkdir()
    for image in data['images']:
        size = image['width'], image['height']
        Image.new('RGB', size).save(tmp_path / 'in' / image['file_name'])
    words = '--preset people --size 64 --steps 1 --batch-size 2 --device cpu --negatives'.split()
    place = ('--annotations', tmp_path / 'labels.json', '--images', tmp_path / 'in')
    validation = ('--val-annotations', tmp_path / 'labels.json')
    done = inside('logocap-train', *words, *place, *validation, '--out', tmp_path / 'run')
    assert done.returncode == 0, done.stderr
    assert '2 images, 1 of them without labeled keypoints' in done.stdout
    assert '"validation"' in (tmp_path / 'run/log.jsonl').read_text()
