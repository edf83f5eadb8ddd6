"Prior arts: trained, broken off and gone on with, read, put into the table, by the commands."
import gzip
import json
import pkgutil
import pytest
import torch
from test_commands import fails
import logocap.prior
from logocap.hrnet import embedded_weights
from logocap.checkpoints import load_network
from logocap.command import make_parser
from logocap.training import train_command


@pytest.mark.parametrize('method', ('centernet', 'dekr', 'associative-embedding'))
def test_trains_and_goes_on(tmp_path, method):
    "Two steps, the second after a break, give the weights of two steps at once."
    for out, until in (('whole', None), ('broken', 1), ('broken', None)):
        train_command(method=method, out=str(tmp_path/out), size=64, batch_size=2, seed=3, device='cpu', steps=2, until=until)
    whole, broken = (load_network(tmp_path/out/'model.safetensors') for out in ('whole', 'broken'))
    assert whole.method == method.replace('-', '_')
    for name, tensor in whole.state_dict().items(): assert torch.equal(tensor, broken.state_dict()[name]), name
    if method == 'dekr': # what the finished network has learnt since stays, when the command is given again
        torch.nn.init.ones_(whole.rescoring[-1].weight)
        whole.save_pretrained(tmp_path/'whole'/'model.safetensors')
        train_command(method=method, out=str(tmp_path/'whole'), size=64, batch_size=2, seed=3, device='cpu', steps=2)
        assert load_network(tmp_path/'whole'/'model.safetensors').rescoring[-1].weight.eq(1).all()


def test_help():
    said = ''.join(makemakemake_parser(train_command.__wrapped__).format_help().split())
    for method in ('logocap', *(m.name for m in pkgutil.iter_modules(logocap.prior.__path__))): assert method.replace('_', '-') in said, method


def test_embedded_networks():
    "Three seeds of each of the four, at most 20 MB together."
    files = {n: f for n, f in embedded_weights().items() if f.suffix == '.gz'}
    assert sorted(files) == [f'{m}-{s}' for m in ('associative_embedding', 'centernet', 'dekr', 'logocap') for s in (21, 22, 23)]
    assert sum(f.stat().st_size for f in files.values()) <= 20e6
    for name in files: assert load_network(name).method == name.rsplit('-', 1)[0]


def test_table(run, tmp_path):
    done = run('logocap-tables', '--table', 'prior', '--limit', 2, '--prior', 'dekr-21', 'logocap-21', '--device', 'cpu', '--out', tmp_path)
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path/'prior.json').read_text())
    assert list(made['rows']) == ['DEKR', 'DEKR, with rescoring', 'LOGO-CAP']
    for row in made['rows'].values(): assert row['ms'] > 0 and row['gflop'] > 1 and set(row['val']['per_seed']) <= {'dekr-21', 'logocap-21'}


def test_bad_files(run, tmp_path):
    packed = embedded_weights()['dekr-21'].read_bytes()
    for name, content in (('cut', packed[:5000]), ('bomb', gzip.compress(bytes(300 * 2**20), 1)), ('text', b'no weights')):
        file = tmp_path/f'{name}.safetensors.gz'
        file.write_bytes(content)
        fails(run('logocap-tables', '--table', 'prior', '--limit', 1, '--prior', file, '--out', tmp_path/'out'), file.name, 'logocap-tables')
    fails(run('logocap-train', '--method', 'nonsense', '--out', tmp_path/'run', '--steps', 1), 'nonsense', 'logocap-train')
