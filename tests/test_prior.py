"Other methods: trained, interrupted and resumed, read, put into the table, by the commands."

import gzip
import json
import pytest
import torch
from test_commands import fails
from logocap.checkpoints import NETWORKS, embedded_weights, load_network
from logocap.command import make_parser
from logocap.training import train_command


def train(method, out, until=None):
    "Two steps on tiny images."
    train_command(
        method=method,
        out=str(out),
        size=64,
        batch_size=2,
        seed=3,
        device='cpu',
        steps=2,
        until=until,
    )


@pytest.mark.parametrize('method', ('centernet', 'dekr', 'associative-embedding'))
def test_trains_and_resumes(tmp_path, method):
    "Two steps, the second after an interruption, give the weights of two steps at once."
    train(method, tmp_path / 'whole')
    train(method, tmp_path / 'interrupted', until=1)
    train(method, tmp_path / 'interrupted')
    whole = load_network(tmp_path / 'whole' / 'model.safetensors')
    resumed = load_network(tmp_path / 'interrupted' / 'model.safetensors')
    assert whole.method == method.replace('-', '_')
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_rescoring_stays(tmp_path):
    "What a finished network has learned since stays when the command is given again."
    train('dekr', tmp_path)
    model = load_network(tmp_path / 'model.safetensors')
    torch.nn.init.ones_(model.rescoring[-1].weight)
    model.save_pretrained(tmp_path / 'model.safetensors')
    train('dekr', tmp_path)
    again = load_network(tmp_path / 'model.safetensors')
    assert again.rescoring[-1].weight.eq(1).all()


def test_help():
    said = ''.join(make_parser(train_command.__wrapped__).format_help().split())
    for method in NETWORKS:
        assert method.replace('_', '-') in said, method


def test_embedded_networks():
    "Three seeds of each of the four, at most 20 MB together."
    files = {
        name: file
        for name, file in embedded_weights().items()
        if name.rpartition('-')[0] in NETWORKS
    }
    expected = []
    for method in ('associative_embedding', 'centernet', 'dekr', 'logocap'):
        for seed in (21, 22, 23):
            expected.append(f'{method}-{seed}')
    assert sorted(files) == expected
    assert sum(file.stat().st_size for file in files.values()) <= 20e6
    for name in files:
        assert load_network(name).method == name.rsplit('-', 1)[0]


def test_table(run, tmp_path):
    done = run(
        'logocap-tables',
        '--table',
        'prior',
        '--limit',
        2,
        '--prior',
        'dekr-21',
        'logocap-21',
        '--device',
        'cpu',
        '--out',
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / 'prior.json').read_text())
    assert list(made['rows']) == ['DEKR', 'DEKR, with rescoring', 'LOGO-CAP']
    for row in made['rows'].values():
        assert row['ms'] > 0 and row['gflop'] > 1
        assert set(row['val']['per_seed']) <= {'dekr-21', 'logocap-21'}


def bad_contents():
    packed = embedded_weights()['dekr-21'].read_bytes()
    return dict(cut=packed[:5000], bomb=gzip.compress(bytes(300 * 2**20), 1), text=b'no weights')


@pytest.mark.parametrize('name', ('cut', 'bomb', 'text'))
def test_bad_files(run, tmp_path, name):
    file = tmp_path / f'{name}.safetensors.gz'
    file.write_bytes(bad_contents()[name])
    done = run(
        'logocap-tables',
        '--table',
        'prior',
        '--limit',
        1,
        '--prior',
        file,
        '--out',
        tmp_path / 'out',
    )
    fails(done, file.name, 'logocap-tables')


def test_unknown_method(run, tmp_path):
    done = run('logocap-train', '--method', 'nonsense', '--out', tmp_path / 'run', '--steps', 1)
    fails(done, 'nonsense', 'logocap-train')
