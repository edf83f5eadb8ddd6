"What travels: the wheel and the sdist, and the commands of an installed copy."

import fcntl
import filecmp
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import termios
import venv
import zipfile
import pytest
from conftest import ROOT
from logocap.people.drawn import PEOPLE_DIGEST, people_digest

LARGEST = 6e6  # bytes of what is published
# among what is hidden are files that other tests write meanwhile
LEFT_OUT = ('.*', 'build', '*.egg-info', '__pycache__', 'tables', 'nbs', 'tests', 'docs')


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "The sdist, and the wheel that is made of it without the rest of the repository."
    folder = tmp_path_factory.mktemp('built')
    source = folder / 'source'  # setuptools leaves build folders behind
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*LEFT_OUT))
    make = [sys.executable, 'setup.py', '-q', 'sdist', '-d', folder]
    subprocess.run(make, cwd=source, check=True, capture_output=True, timeout=300)
    (sdist,) = folder.glob('logocap-*.tar.gz')
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '-q', 'wheel']
    subprocess.run(
        [*pip, '--no-deps', '--no-build-isolation', '-w', folder, sdist],
        check=True,
        capture_output=True,
        timeout=300,
    )
    (wheel,) = folder.glob('logocap-*.whl')
    return sdist, wheel


def test_what_travels(built):
    "Modules, the default network, the paper's tables and one record of times."
    sdist, wheel = built
    assert max(file.stat().st_size for file in built) < LARGEST
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / 'logocap').rglob('*.py')}
    others = {n for n in names if '.dist-info/' not in n and not n.endswith('.py')}
    assert modules <= set(names)
    assert others == {
        'logocap/weights/people-11.safetensors',
        'logocap/data/paper_tables.json',
        'logocap/data/speed.json',
    }
    with tarfile.open(sdist) as content:
        packed = {name.partition('/')[2] for name in content.getnames()}
    assert {'settings.ini', 'setup.py', 'README.md', 'LICENSE'} <= packed


def test_links_of_the_long_description(built):
    "They name their place, which is one in the repository."
    with zipfile.ZipFile(built[1]) as content:
        (name,) = (name for name in content.namelist() if name.endswith('METADATA'))
        text = content.read(name).decode()
    links = re.findall(r'\]\(([^)]+)\)', text)
    assert len(links) > 20
    for link in links:
        assert link.startswith('https://'), link
        place = re.fullmatch(r'https://github\.com/logocap/logocap/(?:raw|blob)/main/(.+)', link)
        if place:
            assert (ROOT / place[1].partition('#')[0]).is_file(), link


@pytest.fixture(scope='module')
def installed(built, tmp_path_factory):
    "The sdist installed into an environment that sees this one's other packages; its programs."
    folder = tmp_path_factory.mktemp('installed')
    venv.create(folder, symlinks=True)
    (site,) = folder.glob('[lL]ib/**/site-packages')
    others = next(path for path in sys.path if path.endswith('site-packages'))
    (site / 'others.pth').write_text(others + '\n')
    programs = folder / ('Scripts' if sys.platform == 'win32' else 'bin')
    pip = [programs / 'python', '-m', 'pip', '--disable-pip-version-check', '-q', 'install']
    pip += ['--no-deps', '--no-build-isolation', '--ignore-installed', built[0]]
    subprocess.run(pip, check=True, capture_output=True, timeout=300)
    return programs


def in_terminal(command, **options):
    "The exit status of a command, and what it says, read from a terminal."
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack('4H', 24, 80, 0, 0))
    process = subprocess.Popen(command, stdout=writer, stderr=writer, **options)
    os.close(writer)
    said = b''
    with open(reader, 'rb', buffering=0) as stream:
        try:
            while part := stream.read(4096):
                said += part
        except OSError:  # how a terminal ends on Linux
            pass
    return process.wait(600), said.decode()


def test_commands_of_an_installed_copy(installed, tmp_path):
    """Prediction with the default network; a table on people who are drawn on first use, bit for
    bit, with a bar; a name that only the repository has."""
    env = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    env.update(LOGOCAP_CACHE=str(tmp_path / 'cache'))
    options = dict(cwd=tmp_path, env=env)
    image = ROOT / 'data/people/val/000000000002.jpg'
    predict = [installed / 'logocap-predict', image, '--out', 'poses.json', '--device', 'cpu']
    status, said = in_terminal(predict, **options)
    assert status == 0, said
    assert (tmp_path / 'poses.json').is_file()

    table = [installed / 'logocap-tables', '--table', '1', '--limit', '4', '--device', 'cpu']
    status, said = in_terminal(table, **options)
    assert status == 0, said
    assert 'data/people is not in this copy' in said and '/300' in said and '/200' in said
    assert (tmp_path / 'tables/table1.json').is_file()
    assert 'no such networks: baseline' in said and 'data/weights of the repository' in said
    drawn = tmp_path / 'cache' / f'people-{PEOPLE_DIGEST[:8]}'
    own = ROOT / 'data/people'
    assert people_digest(drawn) == people_digest(own) == PEOPLE_DIGEST
    for split in ('val', 'occluded'):
        names = os.listdir(own / split)
        assert sorted(os.listdir(drawn / split)) == sorted(names)
        _, different, missing = filecmp.cmpfiles(own / split, drawn / split, names, shallow=False)
        assert not different and not missing
    assert os.listdir(drawn.parent) == [drawn.name]

    status, said = in_terminal(table, **options)
    assert status == 0, said
    assert 'data/people' not in said and '/300' not in said

    prior = [installed / 'logocap-tables', '--table', 'prior', '--device', 'cpu']
    status, said = in_terminal(prior, **options)
    assert status == 1
    assert 'no networks of other methods' in said and 'data/weights of the repository' in said
    status, said = in_terminal([*predict, '--weights', 'people-12'], **options)
    assert status == 1
    assert 'people-12: no such checkpoint' in said and 'data/weights of the repository' in said
