"""What is installed and fetched: hash-checked locks, pinned actions, few permissions, and no
network at run time."""

import os
import re
import shutil
import subprocess
import sys
import pytest
from PIL import Image
from conftest import ROOT

PART = 'supply'
WORKFLOWS = sorted((ROOT / '.github/workflows').glob('*.yml'))
CUT = '''
import sys
def hook(event, args):
    network = ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname', 'socket.bind',
               'socket.sendto', 'urllib.Request')
    if event in network: raise SystemExit(f'network used: {event} {args}')
sys.addaudithook(hook)
from logocap.predict import predict_command
from logocap.training import train_command
sys.argv = ['logocap-predict', sys.argv[1], '--weights', sys.argv[2], '--short-side', '32',
            '--no-flip-test', '--device', 'cpu', '--out', sys.argv[3] + '/poses.json',
            '--draw', sys.argv[3] + '/drawn']
predict_command()
sys.argv = ['logocap-train', '--out', sys.argv[-1][:-6] + '/run', '--size', '64',
            '--batch-size', '1', '--steps', '1', '--device', 'cpu']
train_command()
'''


def test_no_network(tiny, tmp_path, tried):
    """Prediction and training with the network cut off: by Python's audit events, and where the
    system allows, by a namespace without any."""
    Image.new('RGB', (90, 70)).save(tmp_path / 'a.png')
    alone = (
        ['unshare', '-rn']
        if sys.platform.startswith('linux')
        and not subprocess.run(['unshare', '-rn', 'true'], capture_output=True).returncode
        else []
    )
    done = subprocess.run(
        [*alone, sys.executable, '-c', CUT, tmp_path / 'a.png', tiny, tmp_path],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'poses.json').is_file() and (tmp_path / 'run/model.safetensors').is_file()
    tried(
        PART,
        'predictions and training runs without a network'
        + (', in a namespace that has none' if alone else ''),
        2,
        'nothing is asked for',
    )


@pytest.mark.parametrize('file', WORKFLOWS, ids=lambda p: p.name)
def test_workflows(file, tried):
    """Actions are pinned to commits, jobs may read and nothing else, and no credentials stay in
    the checkout."""
    text = file.read_text()
    uses = re.findall(r'uses: *(\S+)', text)
    assert uses and all(re.fullmatch(r'[\w.-]+/[\w./-]+@[0-9a-f]{40}', u) for u in uses), uses
    assert re.search(r'^permissions: *(\{\}|\{contents: read\})$', text, re.M)
    assert text.count('actions/checkout@') == text.count('persist-credentials: false')
    assert not re.search(
        r'pull_request_target|\$\{\{ *github\.event\.(issue|pull_request|head_commit|comment)', text
    )
    for name, job in pytest.importorskip('yaml').safe_load(text)['jobs'].items():
        if 'permissions' not in job:
            continue
        assert name == 'deploy' and job['permissions'] == {'pages': 'write', 'id-token': 'write'}
        # who may write runs nothing of ours
        assert not any('run' in step or 'checkout' in step['uses'] for step in job['steps'])
    tried(PART, 'uses of actions in workflows', len(uses), 'pinned to commits; permissions: read')


@pytest.mark.skipif(not shutil.which('make'), reason='needs make')
@pytest.mark.parametrize('file, count', (('test.yml', 7), ('docs.yml', 5), ('long.yml', 2)))
def test_installations_check_hashes(file, count, tmp_path, tried):
    """What a workflow installs, by itself or through make, comes from a lock with hashes, or is
    this project without dependencies."""
    text = (ROOT / '.github/workflows' / file).read_text()
    assert text.count('bash .ci/run') == text.count('LOCK: ')
    assert 'make test' in (ROOT / '.ci/run').read_text()
    plans = [('test', lock) for lock in set(re.findall(r'LOCK: (\S+?)}', text))] + re.findall(
        r'make ([\w-]+) LOCK=(\S+)', text
    )
    assert plans
    assert len(re.findall(r'run: make ', text)) == len(re.findall(r'make [\w-]+ LOCK=', text))
    found = [line for line in text.splitlines() if 'pip install' in line or 'pip wheel' in line]
    for target, lock in plans:
        assert (ROOT / lock).is_file()
        plan = subprocess.run(
            ['make', '-n', target, f'LOCK={lock}', f'VENV={tmp_path}/venv'],
            cwd=ROOT,
            env={**os.environ, 'MAKEFLAGS': ''},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        found += [line for line in plan.splitlines() if 'pip install' in line]
    assert len(found) == count, found
    assert all('--require-hashes' in line or '--no-deps' in line for line in found), found
    tried(
        PART,
        'installations in workflows',
        len(found),
        'from a lock with hashes, or this project without dependencies',
    )


@pytest.mark.parametrize(
    'file', ('requirements.txt', 'requirements-oldest.txt', 'requirements-docs.txt')
)
def test_lock_covers_what_is_required(file, tried):
    """Every requirement of settings.ini is in the lock, in an allowed version, and every line of
    the lock has its hashes."""
    from configparser import ConfigParser
    from packaging.requirements import Requirement

    config = ConfigParser(delimiters=['='])
    config.read(ROOT / 'settings.ini', encoding='utf-8')
    wanted = [
        Requirement(r)
        for key in ('requirements', 'dev_requirements', *['docs_requirements'] * ('docs' in file))
        for r in config['DEFAULT'][key].split()
    ]
    text = (ROOT / '.ci' / file).read_text().replace('\\\n', ' ')
    assert '://' not in text and not re.search(r'^-', text, re.M)  # no place to fetch from
    locked = [
        line for line in text.splitlines() if line.strip() and not line.lstrip().startswith('#')
    ]
    versions = {}
    for line in locked:
        assert re.match(r'[\w.-]+==\S+', line), line[:80]
        assert re.search(r'--hash=sha256:[0-9a-f]{64}', line), line[:80]
        name, version = re.match(r'([\w.-]+)==(\S+)', line).groups()
        versions.setdefault(name.lower().replace('_', '-'), []).append(version)
    for r in wanted:
        assert any(r.specifier.contains(v) for v in versions.get(r.name.lower(), [])), (
            f'{r} is not in .ci/{file}'
        )
    tried(PART, 'locked packages', len(locked), 'every one with its hashes')
