"Checkpoints and weights files that do not fit, one fault at a time."

import gzip
import json
import pytest
import torch
from logocap.hrnet import HRNet
from logocap.checkpoints import (
    embedded_weights,
    find_weights,
    load_imagenet,
    read_safetensors,
    write_safetensors,
)


@pytest.fixture(scope='module')
def tensors():
    return HRNet(4).state_dict()


def imagenet_fails(file, message):
    with pytest.raises(ValueError) as caught:
        load_imagenet(HRNet(4), file)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize(
    'bad, message',
    (
        (torch.full((64,), torch.nan), 'finite real numbers'),
        (torch.zeros(64, dtype=torch.long), 'finite real numbers'),
        ('text', 'not a dense tensor'),
        (torch.zeros(64).to_sparse(), 'not a dense tensor'),
    ),
    ids=('nan', 'integers', 'text', 'sparse'),
)
def test_tensor_is_unfit(bad, message, tensors, tmp_path):
    file = tmp_path / 'backbone.pth'
    torch.save({**tensors, 'bn1.bias': bad}, file)
    imagenet_fails(file, message)


def test_names_do_not_fit(tensors, tmp_path):
    file = tmp_path / 'backbone.pth'
    torch.save({n: t for n, t in tensors.items() if n != 'conv2.weight'}, file)
    imagenet_fails(file, 'lacks tensor conv2.weight')
    torch.save({**tensors, 'stage5.weight': torch.zeros(1)}, file)
    imagenet_fails(file, 'unknown tensor stage5.weight')
    torch.save({**tensors, 'a': torch.zeros(1), 'b': torch.zeros(1)}, file)
    imagenet_fails(file, 'unknown tensor a (and 1 more)')


def test_early_pytorch_had_no_counters(tensors, tmp_path):
    file = tmp_path / 'backbone.pth'
    torch.save({n: t for n, t in tensors.items() if not n.endswith('num_batches_tracked')}, file)
    loaded = load_imagenet(HRNet(4), file).state_dict()
    assert torch.equal(loaded['conv1.weight'], tensors['conv1.weight'])


def test_no_checkpoint(tmp_path):
    file = tmp_path / 'backbone.pth'
    with pytest.raises(FileNotFoundError, match='no such checkpoint'):
        load_imagenet(HRNet(4), file)
    file.write_bytes(b'not a checkpoint')
    imagenet_fails(file, 'not a readable checkpoint')


@pytest.fixture
def packed(tmp_path):
    file = tmp_path / 'some.safetensors.gz'
    some = dict(
        kernel=torch.randn(5, 4, 3, 3),
        bias=torch.randn(5),
        flat=torch.zeros(2, 3),
        count=torch.tensor(7),
    )
    write_safetensors(file, some, dict(short_side='256'), bits=7)
    return file, some


def test_seven_bits_back_and_forth(packed):
    file, some = packed
    read, about = read_safetensors(file)
    assert about == dict(short_side='256')
    for name in ('bias', 'flat', 'count'):
        assert torch.equal(read[name], some[name])
    half_a_step = some['kernel'].flatten(1).abs().amax(1) / 63 / 2
    error = (read['kernel'] - some['kernel']).flatten(1).abs()
    assert (error <= half_a_step[:, None] * 1.001).all()


def with_header(header):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, 'little') + text


def test_packed_file_is_broken(packed):
    file, _ = packed
    whole = file.read_bytes()
    inside = gzip.decompress(whole)
    header = json.loads(inside[8 : 8 + int.from_bytes(inside[:8], 'little')])
    huge = dict(kernel=dict(header['kernel'], data_offsets=[0, 2**40]))
    no_text = dict(__metadata__=dict(short_side=[256]))
    for content, reason in (
        (whole[:-30], 'Compressed file ended'),
        (b'text', 'Not a gzipped file'),
        (gzip.compress(b'text'), 'a header of'),
        (gzip.compress(inside + bytes(10)), 'it does not hold what'),
        (gzip.compress(with_header(huge)), f'{2**40:,} bytes of tensors'),
        (gzip.compress(with_header(no_text)), ''),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError) as caught:
            read_safetensors(file)
        start = f'{file}: not a readable safetensors file ({reason}'
        assert str(caught.value).startswith(start)


def test_scale_does_not_fit(tmp_path):
    file = tmp_path / 'some.safetensors.gz'
    kernel = torch.ones(2, 2, dtype=torch.int8)
    write_safetensors(file, {'kernel': kernel, 'kernel.scale': torch.ones(3)}, {})
    message = 'some.safetensors.gz: the scale of tensor kernel does not fit'
    with pytest.raises(ValueError, match=message):
        read_safetensors(file)


def test_weights_of_the_current_folder(tmp_path, monkeypatch):
    "What lies in data/weights goes by its name; the package's own come first."
    default = find_weights()
    folder = tmp_path / 'data/weights'
    folder.mkdir(parents=True)
    for name in ('mine-1.safetensors', default.name):
        (folder / name).write_bytes(b'')
    monkeypatch.chdir(tmp_path)
    names = list(embedded_weights())
    assert names[0] == default.name.removesuffix('.safetensors') and 'mine-1' in names
    assert find_weights('mine-1').resolve() == folder / 'mine-1.safetensors'
    assert find_weights() == find_weights(names[0]) == default


def test_a_copy_without_the_others(tmp_path, monkeypatch):
    "Names of weights that only the repository has: one line says where they are."
    from logocap import command

    own = find_weights().parent
    monkeypatch.setattr(command, '_weight_folders', lambda: (own, tmp_path, tmp_path))
    with pytest.raises(FileNotFoundError, match='nobody-7: no such checkpoint.*git clone'):
        find_weights('nobody-7')
    monkeypatch.setattr(command, '_weight_folders', lambda: (tmp_path,))
    with pytest.raises(FileNotFoundError, match='lost its own.*git clone'):
        find_weights()
