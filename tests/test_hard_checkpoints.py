"Checkpoints from strangers: no foreign code runs, and what is wrong is one line naming the tensor."

import os
import pickle
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from conftest import LONG
from logocap.model import LogoCap

PART = 'checkpoints'


@pytest.fixture(scope='module')
def state(tiny):
    return LogoCap.from_pretrained(tiny).state_dict()


def refused(file, *faults):
    "A file is refused with one line that names it and one of the faults."
    with pytest.raises(ValueError) as e:
        LogoCap.from_pretrained(file)
    text = str(e.value)
    assert text.startswith(f'{file}: ') and len(text) < len(str(file)) + 250, text
    assert '\n' not in text and '\x1b' not in text and 'likely succeed' not in text, text
    assert not faults or any(fault in text for fault in faults), text


class Trap:
    "Unpickled, it makes a folder."

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.fixture
def trapped(tmp_path):
    "The folder that a trap makes; it is not there yet, and the trap works."
    folder = tmp_path / 'trapped'
    pickle.loads(pickle.dumps(Trap(folder)))
    assert folder.exists()
    folder.rmdir()
    return folder


def test_code_in_a_checkpoint_is_not_run(state, tmp_path, trapped, tried):
    places = dict(
        whole=Trap(trapped),
        extra=dict(state, extra=Trap(trapped)),
        nested=dict(state_dict=dict(state, extra=[Trap(trapped)])),
        key={'x': {1: Trap(trapped)}},
    )
    formats = (dict(), dict(_use_new_zipfile_serialization=False), dict(pickle_protocol=4))
    faults = (
        'it wants posix.mkdir executed',
        'it wants nt.mkdir executed',
        'Unsupported operand',
        'not a readable checkpoint',
    )
    what = 'checkpoints with code in them, zipped, old and of pickle protocol 4'
    for name, content in places.items():
        file = tmp_path / f'{name}.pth'
        for options in formats:
            torch.save(content, file, **options)
            refused(file, *faults)
            assert not trapped.exists()
            tried(PART, what, 1, 'refused without running it')


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_in_a_plain_pickle_is_not_run(protocol, tmp_path, trapped, tried):
    content = pickle.dumps(Trap(trapped), protocol)
    (tmp_path / 'plain.pth').write_bytes(content)
    refused(tmp_path / 'plain.pth')
    (tmp_path / 'plain.safetensors').write_bytes(content)
    refused(tmp_path / 'plain.safetensors', 'not a readable safetensors file')
    assert not trapped.exists()
    what = 'plain pickles of all protocols under both suffixes'
    tried(PART, what, 2, 'refused without running it')


def test_truncated_files(state, tiny, tmp_path, tried):
    torch.save(state, tmp_path / 'whole.pth')
    for source in (tmp_path / 'whole.pth', tiny):
        data, cut = source.read_bytes(), tmp_path / f'cut{source.suffix}'
        ends = np.unique(np.linspace(0, len(data) - 1, 300 if LONG else 8).astype(int))
        for end in ends:
            cut.write_bytes(data[:end])
            refused(cut, 'not a readable')
        tried(PART, 'files cut off anywhere, from 0 bytes on', len(ends), 'one line')


FOREIGN = (
    b'',
    b'text' * 999,
    b'{"a": 1}',
    b'\x89PNG\r\n\x1a\n',
    bytes(10000),
    b'PK\x03\x04' + bytes(999),
)


@pytest.mark.parametrize('suffix', ('.pth', '.safetensors'))
def test_foreign_files(suffix, tmp_path, tried):
    file = tmp_path / f'foreign{suffix}'
    for content in FOREIGN:
        file.write_bytes(content)
        refused(file, 'not a readable')
        tried(PART, 'files that are something else', 1, 'one line')


def test_flipped_bytes(state, tiny, tmp_path, tried):
    "What cannot be told from a checkpoint is loaded; everything else is one line."
    torch.save(state, tmp_path / 'whole.pth')
    rng = np.random.default_rng(0)
    for source in (tmp_path / 'whole.pth', tiny):
        data, file = source.read_bytes(), tmp_path / f'flipped{source.suffix}'
        for n in range(40 if LONG else 6):
            flipped = bytearray(data)
            end = 3000 if n % 2 else len(data)
            for at in rng.integers(0, end, 4):
                flipped[at] = rng.integers(256)
            file.write_bytes(flipped)
            try:
                model = LogoCap.from_pretrained(file)
            except ValueError:
                refused(file)
                outcome = 'one line'
            else:
                assert all(t.isfinite().all() for t in model.state_dict().values())
                outcome = 'loaded, all weights finite'
            tried(PART, 'files with four flipped bytes', 1, outcome)


def misfits(name, tensor):
    "What can be wrong with a tensor: what, the wrong tensor or None, faults (one is named)."
    nan = tensor.clone(memory_format=torch.contiguous_format)
    nan.view(-1)[0] = torch.nan
    infinite = tensor.clone(memory_format=torch.contiguous_format)
    infinite.view(-1)[-1] = -torch.inf
    whole_numbers = torch.zeros(tensor.shape, dtype=torch.long)
    claims_more = torch.zeros(1).expand(tensor.shape) if tensor.numel() > 1 else None
    holds = f'tensor {name} holds'
    yield 'not finite', nan, [holds]
    yield 'not finite', infinite, [holds]
    yield 'of another width', torch.cat([tensor, tensor]), ['tensor ']
    yield 'missing', None, [f'lacks tensor {name}']
    yield 'of whole numbers', whole_numbers, [holds]
    yield 'complex', tensor.to(torch.complex64), [holds]
    yield 'sparse', tensor.to_sparse(), [f'{name} is not a dense tensor']
    yield 'a single number', torch.tensor(1.0), [f'tensor {name} is']
    faults = [f'tensor {name} claims', f'lacks tensor {name}']
    yield 'larger than the file', claims_more, faults


def test_tensors_that_do_not_fit(state, tmp_path, tried):
    rng = np.random.default_rng(1)
    file = tmp_path / 'bad.pth'
    floats = [name for name in state if state[name].is_floating_point()]
    for name in rng.choice(floats, 12 if LONG else 1).tolist():
        for what, bad, faults in misfits(name, state[name]):
            content = dict(state)
            del content[name]
            if bad is not None:
                content[name] = bad
            torch.save(content, file)
            refused(file, *faults)
            it = 'a tensor' if what == 'of another width' else 'it'
            tried(PART, f'a tensor that is {what}', 1, f'one line that names {it}')


def test_other_networks(state, tmp_path, tried):
    file = tmp_path / 'bad.pth'
    numbered = {1: dict(state), 'state_dict': {7: torch.zeros(1)}}
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 4))
    backbone = LogoCap(5, 8, 8, 4, (12, 10, 8), 3).backbone
    lacks_backbone = 'not a LOGO-CAP checkpoint, it lacks tensor backbone'
    cases = (
        (dict(state, surprise=torch.zeros(1)), 'unknown tensor surprise'),
        (numbered, 'lacks tensor'),
        (other.state_dict(), lacks_backbone),
        (backbone.state_dict(), lacks_backbone),
    )
    for content, fault in cases:
        torch.save(content, file)
        refused(file, fault)
    what = 'extra tensors, other networks, numbers for names'
    tried(PART, what, len(cases), 'one line that names a tensor')


SHORT_SIDES = ('0', '-32', '33', 'wide', '', '1e3', '64.0', '32' * 3000, '32000', '３２')
METHODS = ('', '..', 'os', 'a b', 'logocap.prior', 'x' * 5000, '1', 'LogoCap')


@pytest.mark.parametrize(
    'name, texts',
    (
        ('short_side', SHORT_SIDES),
        ('candidates', ('0', '-1', '²', '9' * 5000, '1001', 'all')),
        ('window', ('0', '10', '99', '1' * 5000, '-11')),
        ('method', METHODS),
    ),
)
def test_metadata(name, texts, tmp_path, tried):
    """What a file says of itself is as foreign as its tensors.

    A method is a name among those of the package; nothing else is imported.
    """
    for text in texts:
        tensors = dict(any=torch.zeros(1))
        save_file(tensors, tmp_path / 'said.safetensors', {name: text})
        refused(tmp_path / 'said.safetensors', name.replace('_', ' '))
        torch.save(dict(state_dict=tensors, about={name: text}), tmp_path / 'said.pt')
        refused(tmp_path / 'said.pt', name.replace('_', ' '))
        tried(PART, 'wrong facts in the metadata', 2, 'one line')
