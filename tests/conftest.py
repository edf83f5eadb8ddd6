"""Where the tests find the project, its installed commands and the reference data.

The reference data is not on every machine. The record of what was tried is kept here, too.
"""

import os
import platform
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
import pytest
from forked import command, run_forked

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / 'shared'
LONG = os.environ.get('STRESS') == 'long'  # set by `make stress`

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
FLAGS = [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
]


def pytest_configure(config):
    long = 'slow: the long form of a test whose short form runs each time; `-m slow` runs these'
    config.addinivalue_line('markers', long)


def pytest_collection_modifyitems(config, items):
    "What is marked slow runs where it is asked for."
    if config.option.markexpr:
        return
    slow = [item for item in items if item.get_closest_marker('slow')]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


def _folder(name):
    if not (SHARED / name).is_dir():
        pytest.skip(f'the reference folder shared/{name} is not beside the checkout')
    return SHARED / name


@pytest.fixture(scope='session')
def parity():
    "Checkpoint, images and values recorded from the released implementation."
    return _folder('parity')


@pytest.fixture(scope='session')
def coco_mini():
    "Photographs with keypoint annotations in COCO's layout."
    return _folder('coco-mini')


@pytest.fixture(scope='session')
def run():
    """Run a command in a process of its own; returns it, completed, with its output as text.

    With options it is the installed program, which takes seconds more to import.
    """

    def run(command, *args, **options):
        if not options:
            return run_forked(command, *args)
        return subprocess.run(
            [Path(sys.executable).with_name(command), *map(str, args)],
            capture_output=True,
            text=True,
            timeout=600,
            **options,
        )

    return run


@pytest.fixture
def inside(capsys, monkeypatch):
    """The same within this process, which has imported everything already.

    For what ends before the work starts.
    """

    def inside(name, *args):
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        capsys.readouterr()
        try:
            code = command(name)() or 0
        except SystemExit as e:
            code = e.code
        return subprocess.CompletedProcess(args, code, *capsys.readouterr())

    return inside


@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    "A checkpoint of a very narrow network with random weights, which sees people everywhere."
    import torch
    from logocap.model import LogoCap

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
    model = LogoCap(4, 8, 8, 4, (12, 10, 8), 3)
    model.heatmap_head[-1].bias.data.fill_(0.5)
    for m in model.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(4, 3, 64, 64))  # batch norms that fit
    model.save_pretrained(file)
    return file


@pytest.fixture(scope='session')
def browser():
    "A headless Chromium."
    reason = "no playwright: pip install -e '.[docs]'"
    playwright = pytest.importorskip('playwright.sync_api', reason=reason)
    with playwright.sync_playwright() as p:
        places = [os.environ.get('CHROMIUM'), *map(shutil.which, BROWSERS)]
        places.append(p.chromium.executable_path)
        installed = [f for f in places if f and Path(f).is_file()]
        if not installed:
            pytest.skip('no Chromium on this machine')
        browser = p.chromium.launch(executable_path=installed[0], args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    "Opens an address in a window of its own."
    contexts = []

    def open_page(url, width=1280, height=900, **options):
        contexts.append(browser.new_context(viewport=dict(width=width, height=height), **options))
        contexts[-1].set_default_timeout(300_000)  # milliseconds, for a busy machine
        page = contexts[-1].new_page()
        page.goto(url)
        return page

    yield open_page
    for c in contexts:
        c.close()


_tried, _start = {}, time.time()


@pytest.fixture(scope='session')
def tried():
    """tried(part, what, count, outcome) notes what a test has tried, for tests/RELIABILITY.md.

    Noting the same again adds to the count.
    """

    def tried(part, what, count, outcome):
        _tried[part, what, outcome] = _tried.get((part, what, outcome), 0) + count

    return tried


def pytest_sessionfinish(session, exitstatus):
    "The long form, all of it green, writes down what was tried."
    file = os.environ.get('RELIABILITY')
    if not file or not LONG or exitstatus:
        return
    from logocap.files import write_text

    stats = session.config.pluginmanager.get_plugin('terminalreporter').stats
    passed = len(stats.get('passed', []))
    minutes = f'{(time.time() - _start) / 60:.0f} minutes'
    today = time.strftime('%d %B %Y', time.gmtime())
    machine = f'{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}'
    packages = f'torch {version("torch")}, Pillow {version("pillow")}'
    lines = [
        '# What was tried to break it',
        '',
        'Written by `make stress`, which repeats it; nothing here is typed by hand. '
        'Seeds are fixed, moments of killing are not.',
        '',
        f'{passed} tests passed in {minutes} on {today}: {machine}, {packages}.',
        '',
        '| part | tried | times | what came of it |',
        '|---|---|--:|---|',
    ]
    for (part, what, outcome), count in _tried.items():
        lines.append(f'| {part} | {what} | {count:,} | {outcome} |')
    lines.append('')
    if skipped := stats.get('skipped', []):
        lines += ['Not tried on this machine:', '']
        for report in skipped:
            reason = report.longrepr[2].removeprefix('Skipped: ')
            lines.append(f'- {report.nodeid.split("::")[-1]}: {reason}')
        lines.append('')
    write_text(file, '\n'.join(lines))
