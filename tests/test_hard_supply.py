"What is installed and fetched: hash-checked locks, pinned actions, few permissions, and no network at run time."
import re
import subprocess
import sys
from pathlib import Path
import pytest
from PIL import Image
from conftest import ROOT

PART = 'supply'
WORKFLOWS = sorted((ROOT/'.github/workflows').glob('*.yml'))
CUT = '''
import sys
def hook(event, args):
    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname', 'socket.bind', 'socket.sendto', 'urllib.Request'): raise SystemExit(f'network used: {event} {args}')
sys.addaudithook(hook)
from logocap.model import predict_command
from logocap.training import train_command
sys.argv = ['logocap-predict', sys.argv[1], '--weights', sys.argv[2], '--short-side', '32', '--no-flip-test', '--device', 'cpu', '--out', sys.argv[3] + '/poses.json', '--draw', sys.argv[3] + '/drawn']
predict_command()
sys.argv = ['logocap-train', '--out', sys.argv[-1][:-6] + '/run', '--size', '64', '--batch-size', '1', '--steps', '1', '--device', 'cpu']
train_command()
'''


def test_no_network(tiny, tmp_path, tried):
    "Prediction and training with the network cut off: by Python's audit events, and where the system allows, by a namespace without any."
    Image.new('RGB', (90, 70)).save(tmp_path/'a.png')
    alone = ['unshare', '-rn'] if sys.platform.startswith('linux') and not subprocess.run(['unshare', '-rn', 'true'], capture_output=True).returncode else []
    done = subprocess.run([*alone, sys.executable, '-c', CUT, tmp_path/'a.png', tiny, tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path/'poses.json').is_file() and (tmp_path/'run/model.safetensors').is_file()
    tried(PART, 'predictions and training runs without a network' + (', in a namespace that has none' if alone else ''), 2, 'nothing is asked for')


@pytest.mark.parametrize('file', WORKFLOWS, ids=lambda p: p.name)
def test_workflows(file, tried):
    "Actions are pinned to commits, jobs may read and nothing else, and no credentials stay in the checkout."
    text = file.read_text()
    uses = re.findall(r'uses: *(\S+)', text)
    assert uses and all(re.fullmatch(r'[\w.-]+/[\w./-]+@[0-9a-f]{40}', u) for u in uses), uses
    assert re.search(r'^permissions: *(\{\}|\{contents: read\})$', text, re.M)
    assert text.count('actions/checkout@') == text.count('persist-credentials: false')
    assert not re.search(r'pull_request_target|\$\{\{ *github\.event\.(issue|pull_request|head_commit|comment)', text)
    tried(PART, 'uses of actions in workflows', len(uses), 'pinned to commits; permissions: read')


def test_lock_covers_what_is_required(tried):
    "Every requirement of settings.ini is in the lock, in an allowed version, and every line of the lock has its hashes."
    from configparser import ConfigParser
    from packaging.requirements import Requirement
    config = ConfigParser(delimiters=['='])
    config.read(ROOT/'settings.ini', encoding='utf-8')
    wanted = [Requirement(r) for key in ('requirements', 'dev_requirements') for r in config['DEFAULT'][key].split()]
    text = (ROOT/'.ci/requirements.txt').read_text().replace('\\\n', ' ')
    locked = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith('#')]
    versions = {}
    for line in locked:
        assert re.match(r'[\w.-]+==\S+', line) and re.search(r'--hash=sha256:[0-9a-f]{64}', line), line[:80]
        name, version = re.match(r'([\w.-]+)==(\S+)', line).groups()
        versions.setdefault(name.lower().replace('_', '-'), []).append(version)
    for r in wanted: assert any(r.specifier.contains(v) for v in versions.get(r.name.lower(), [])), f'{r} is not in .ci/requirements.txt'
    tried(PART, 'locked packages', len(locked), 'every one with its hashes')
