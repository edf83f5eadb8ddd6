"""The widgets in a real JupyterLab: a headless Chromium opens lab/04_explore, runs it and moves
what can be moved."""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import pytest
from PIL import Image
from conftest import ROOT
from logocap.people import draw_people

pytest.importorskip('jupyterlab', reason="no JupyterLab: pip install -e '.[dev]'")
pytest.importorskip('ipywidgets', reason="no ipywidgets: pip install -e '.[dev]'")

NAME = 'lab/04_explore.ipynb'
# What a widget shows: its words, and its picture byte by byte.
SHOWN = '''async box => [box.querySelector('.widget-html-content').innerHTML,
                         [...new Uint8Array(await (await fetch(
                             box.querySelector('img.widget-image').src)).arrayBuffer())].join()]'''
RUN = '''async name => {
  const app = window.jupyterapp;
  await app.restored;
  const panel = await app.commands.execute('docmanager:open', {path: name});
  await panel.context.ready;
  await panel.sessionContext.ready;
  await app.commands.execute('notebook:run-all-cells');
}'''


@pytest.fixture(scope='module')
def lab(tmp_path_factory, browser):
    """A JupyterLab of its own settings on this machine, with a copy of the notebook; `browser`
    comes first, so that nothing starts where there is none."""
    place = tmp_path_factory.mktemp('lab')
    (place / 'work').mkdir()
    shutil.copy(ROOT / 'nbs' / NAME, place / 'work')
    # cells out of sight are there, too
    whole = place / 'settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings'
    whole.parent.mkdir(parents=True)
    whole.write_text(json.dumps(dict(windowingMode='none')))
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    own = dict(
        JUPYTER_CONFIG_DIR=str(place / 'config'),
        JUPYTER_RUNTIME_DIR=str(place / 'runtime'),
        JUPYTERLAB_SETTINGS_DIR=str(place / 'settings'),
        JUPYTERLAB_WORKSPACES_DIR=str(place / 'workspaces'),
        PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')])),
    )
    options = [
        f'--ServerApp.port={port}',
        '--ServerApp.port_retries=0',
        '--ServerApp.ip=127.0.0.1',
        f'--ServerApp.root_dir={place / "work"}',
        '--IdentityProvider.token=',
        '--ServerApp.open_browser=False',
        '--ServerApp.allow_root=True',
        '--LabApp.expose_app_in_browser=True',
        '--LabApp.news_url=',
        '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate',
    ]
    address = f'http://127.0.0.1:{port}/'
    with open(place / 'log', 'w') as log:
        server = subprocess.Popen(
            [sys.executable, '-m', 'jupyterlab', *options],
            env={**os.environ, **own},
            stdout=log,
            stderr=log,
        )
    try:
        for _ in range(600):
            assert server.poll() is None, (place / 'log').read_text()
            try:
                urllib.request.urlopen(address + 'api', timeout=5).close()
            except OSError:
                time.sleep(0.2)
            else:
                break
        else:
            raise TimeoutError((place / 'log').read_text())
        yield address
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture(scope='module')
def notebook(lab, browser):
    "The notebook, open and run from top to bottom."
    page = browser.new_page(viewport=dict(width=1400, height=1000))
    page.set_default_timeout(600_000)  # milliseconds, for a busy machine
    page.goto(f'{lab}lab?reset')
    page.wait_for_function('window.jupyterapp')
    page.evaluate(RUN, NAME.rpartition('/')[2])
    yield page
    page.close()


def widgets(page):
    return page.locator('.jp-OutputArea-output .widget-vbox:has(img.widget-image)')


def changed(page, box, before):
    "What a widget shows as soon as it shows something else."
    for _ in range(600):
        now = box.evaluate(SHOWN)
        if now[0] != before[0] and now[1] != before[1]:
            return now
        page.wait_for_timeout(100)
    raise AssertionError(f'still {now[0]}')


def test_every_cell_runs(notebook):
    stored = json.loads((ROOT / 'nbs' / NAME).read_text(encoding='utf-8'))
    assert notebook.locator('.jp-CodeCell .jp-InputPrompt').all_inner_texts() == [
        f'[{n}]:' for n in range(1, 1 + sum(c['cell_type'] == 'code' for c in stored['cells']))
    ]
    assert (
        notebook.locator(
            '[data-mime-type="application/vnd.jupyter.error"], '
            '[data-mime-type="application/vnd.jupyter.stderr"]'
        ).count()
        == 0
    )
    assert widgets(notebook).count() == 5


@pytest.mark.parametrize('number', range(4), ids=['keypoint', 'window', 'oks', 'decoder'])
def test_a_slider_changes_figure_and_number(notebook, number):
    box = widgets(notebook).nth(number)
    handle, before = box.locator('.noUi-handle').first, box.evaluate(SHOWN)
    handle.focus()
    notebook.keyboard.press('ArrowRight')
    after = changed(notebook, box, before)
    notebook.keyboard.press('ArrowLeft')
    assert changed(notebook, box, after) == before  # the way back leads to the same


def test_an_uploaded_picture_is_looked_at(notebook):
    box, file = widgets(notebook).nth(4), io.BytesIO()
    Image.fromarray(draw_people(4, 5, (320, 256), 0.4)[0]).save(file, 'PNG')

    def upload(name, content):
        with notebook.expect_file_chooser() as asked:
            box.locator('button').first.click()
        asked.value.set_files(dict(name=name, mimeType='image/png', buffer=content))

    before = box.evaluate(SHOWN)
    upload('people.png', file.getvalue())
    assert '320×256' in changed(notebook, box, before)[0]
    upload('broken.png', file.getvalue()[:100])
    box.locator('.widget-html-content', has_text='broken.png: not a readable image').wait_for()


def test_frames_move(notebook):
    twins = notebook.locator('.jp-OutputArea-output .frames').all()
    assert len(twins) == 5
    for twin in twins:
        visible = twin.locator('.frame:visible img')
        before = visible.get_attribute('src')
        twin.locator('input[type=range]').fill('0')
        assert visible.count() == 1 and visible.get_attribute('src') != before
