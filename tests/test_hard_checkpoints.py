"Checkpoints from strangers: no foreign code runs, and what is wrong is one line that names the tensor."
import os
import pickle
import numpy as np
import pytest
import torch
from conftest import LONG
from logocap.model import LogoCap

PART = 'checkpoints'


@pytest.fixture(scope='module')
def state(tiny): return LogoCap.from_pretrained(tiny).state_dict()


def refused(file, *faults):
    with pytest.raises(ValueError) as e: LogoCap.from_pretrained(file)
    text = str(e.value)
    assert text.startswith(f'{file}: ') and '\n' not in text and '\x1b' not in text and 'likely succeed' not in text and len(text) < len(str(file)) + 250, text
    assert not faults or any(f in text for f in faults), text


class Trap:
    "Unpickled, it makes a folder."
    def __init__(self, folder): self.folder = str(folder)
    def __reduce__(self): return os.mkdir, (self.folder,)


def test_code_in_a_checkpoint_is_not_run(state, tmp_path, tried):
    trapped = tmp_path/'trapped'
    pickle.loads(pickle.dumps(Trap(trapped)))
    assert trapped.exists()  # the trap works
    trapped.rmdir()
    places = dict(whole=Trap(trapped), extra=dict(state, extra=Trap(trapped)), nested=dict(state_dict=dict(state, extra=[Trap(trapped)])), key={'x': {1: Trap(trapped)}})
    for name, content in places.items():
        for options in (dict(), dict(_use_new_zipfile_serialization=False), dict(pickle_protocol=4)):
            torch.save(content, tmp_path/f'{name}.pth', **options)
            refused(tmp_path/f'{name}.pth', 'it wants posix.mkdir executed', 'it wants nt.mkdir executed', 'Unsupported operand', 'not a readable checkpoint')
            assert not trapped.exists()
            tried(PART, 'checkpoints with code in them, zipped, old and of pickle protocol 4', 1, 'refused without running it')
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path/'plain.pth').write_bytes(pickle.dumps(Trap(trapped), protocol))
        refused(tmp_path/'plain.pth')
        (tmp_path/'plain.safetensors').write_bytes(pickle.dumps(Trap(trapped), protocol))
        refused(tmp_path/'plain.safetensors', 'not a readable safetensors file')
        assert not trapped.exists()
        tried(PART, 'plain pickles of all protocols under both suffixes', 2, 'refused without running it')


def test_cut_off_and_foreign_files(state, tiny, tmp_path, tried):
    torch.save(state, tmp_path/'whole.pth')
    for source in (tmp_path/'whole.pth', tiny):
        data, cut = source.read_bytes(), tmp_path/f'cut{source.suffix}'
        ends = np.unique(np.linspace(0, len(data) - 1, 300 if LONG else 8).astype(int))
        for end in ends:
            cut.write_bytes(data[:end])
            refused(cut, 'not a readable')
        tried(PART, 'files cut off anywhere, from 0 bytes on', len(ends), 'one line')
    for suffix in ('.pth', '.safetensors'):
        for content in (b'', b'text' * 999, b'{"a": 1}', b'\x89PNG\r\n\x1a\n', bytes(10000), b'PK\x03\x04' + bytes(999)):
            (tmp_path/f'foreign{suffix}').write_bytes(content)
            refused(tmp_path/f'foreign{suffix}', 'not a readable')
            tried(PART, 'files that are something else', 1, 'one line')


def test_flipped_bytes(state, tiny, tmp_path, tried):
    "What cannot be told from a checkpoint is loaded; everything else is one line."
    torch.save(state, tmp_path/'whole.pth')
    rng = np.random.default_rng(0)
    for source in (tmp_path/'whole.pth', tiny):
        data, file = source.read_bytes(), tmp_path/f'flipped{source.suffix}'
        for n in range(40 if LONG else 6):
            flipped = bytearray(data)
            for at in rng.integers(0, 3000 if n % 2 else len(data), 4): flipped[at] = rng.integers(256)
            file.write_bytes(flipped)
            try: model = LogoCap.from_pretrained(file)
            except ValueError: refused(file); outcome = 'one line'
            else:
                assert all(t.isfinite().all() for t in model.state_dict().values())
                outcome = 'loaded, all weights finite'
            tried(PART, 'files with four flipped bytes', 1, outcome)


def test_tensors_that_do_not_fit(state, tmp_path, tried):
    names = list(state)
    rng = np.random.default_rng(1)
    file = tmp_path/'bad.pth'
    floats = [n for n in names if state[n].is_floating_point()]
    for n in rng.choice(floats, 12 if LONG else 1):
        t = state[n]
        nan, inf = (t.clone(memory_format=torch.contiguous_format) for _ in range(2))
        nan.view(-1)[0], inf.view(-1)[-1] = torch.nan, -torch.inf
        wide = torch.cat([t, t])
        for what, bad, *faults in (('not finite', nan, f'tensor {n} holds'), ('not finite', inf, f'tensor {n} holds'), ('of another width', wide, 'tensor '),
                                   ('missing', None, f'lacks tensor {n}'), ('of whole numbers', torch.zeros(t.shape, dtype=torch.long), f'tensor {n} holds'),
                                   ('complex', t.to(torch.complex64), f'tensor {n} holds'), ('sparse', t.to_sparse(), f'{n} is not a dense tensor'), ('a single number', torch.tensor(1.), f'tensor {n} is'),
                                   ('larger than the file', torch.zeros(1).expand(t.shape) if t.numel() > 1 else None, f'tensor {n} claims', f'lacks tensor {n}')):
            torch.save({k: v for k, v in dict(state, **{n: bad}).items() if v is not None}, file)
            refused(file, *faults)
            tried(PART, f'a tensor that is {what}', 1, 'one line that names it' if what != 'of another width' else 'one line that names a tensor')
    torch.save(dict(state, surprise=torch.zeros(1)), file)
    refused(file, 'unknown tensor surprise')
    torch.save({1: dict(state), 'state_dict': {7: torch.zeros(1)}}, file)
    refused(file, 'lacks tensor')
    from torch import nn
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 4)).state_dict(), file)
    refused(file, 'not a LOGO-CAP checkpoint, it lacks tensor backbone')
    torch.save(LogoCap(5, 8, 8, 4, (12, 10, 8), 3).backbone.state_dict(), file)
    refused(file, 'not a LOGO-CAP checkpoint, it lacks tensor backbone')
    tried(PART, 'extra tensors, other networks, numbers for names', 4, 'one line that names a tensor')


@pytest.mark.parametrize('name, texts', (('short_side', ('0', '-32', '33', 'wide', '', '1e3', '64.0', '32' * 3000, '32000', '３２')), ('candidates', ('0', '-1', '²', '9' * 5000, '1001', 'all')),
                                         ('window', ('0', '10', '99', '1' * 5000, '-11')), ('method', ('', '..', 'os', 'a b', 'logocap.prior', 'x' * 5000, '1', 'LogoCap'))))
def test_metadata(name, texts, tmp_path, tried):
    "What a file says of itself is as foreign as its tensors. (A method is a name among those of the package; nothing else is imported.)"
    from safetensors.torch import save_file
    for text in texts:
        save_file(dict(any=torch.zeros(1)), tmp_path/'said.safetensors', {name: text})
        refused(tmp_path/'said.safetensors', name.replace('_', ' '))
        torch.save(dict(state_dict=dict(any=torch.zeros(1)), about={name: text}), tmp_path/'said.pt')
        refused(tmp_path/'said.pt', name.replace('_', ' '))
        tried(PART, 'wrong facts in the metadata', 2, 'one line')
