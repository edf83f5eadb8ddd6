"The documentation site, built from the stored notebooks and opened in a real browser."

import functools
import http.server
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
from urllib.parse import unquote, urldefrag
import nbformat
import pytest
from conftest import ROOT

for needed in ('sphinx', 'myst_nb', 'sphinx_book_theme', 'latex2mathml', 'ziamath'):
    pytest.importorskip(needed, reason=f"no {needed}: pip install -e '.[docs]'")
sys.path.insert(0, str(ROOT / 'docs'))
import api
import build
from mathml import mathml

NOTEBOOKS = ['index', *map(build.page_of, build.notebooks())]


@pytest.fixture(scope='session')
def site(tmp_path_factory):
    "The built site."
    out = tmp_path_factory.mktemp('site')
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    made = subprocess.run(
        [sys.executable, ROOT / 'docs/build.py', '--out', out],
        capture_output=True,
        text=True,
        timeout=1200,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert made.returncode == 0, made.stdout + made.stderr
    # its own seconds: the machine may be busy
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 120
    return out / 'html'


@pytest.fixture(scope='session')
def address(site):
    "The site behind a server on this machine."

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(
        ('127.0.0.1', 0), functools.partial(Quiet, directory=str(site))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/'
    server.shutdown()


@pytest.fixture(scope='session')
def axe(tmp_path_factory):
    "axe-core's script, from the npm registry; the environment's AXE names a copy."
    if 'AXE' in os.environ:
        return os.environ['AXE']
    npm, folder = shutil.which('npm'), tmp_path_factory.mktemp('axe')
    if not npm:
        pytest.skip('no npm to get axe-core with')
    got = subprocess.run(
        [npm, 'install', '--prefix', folder, '--no-audit', '--no-fund', 'axe-core@4'],
        capture_output=True,
        text=True,
        timeout=300,
    )
    if got.returncode:
        pytest.skip('axe-core cannot be had from npm: ' + got.stderr[-200:])
    return folder / 'node_modules/axe-core/axe.min.js'


def pages(site):
    return sorted(
        p.relative_to(site).as_posix() for p in site.rglob('*.html') if '_static' not in p.parts
    )


FACTS = '''() => ({
  links: [...document.querySelectorAll('a[href]')].map(a => a.href),
  ids: [...document.querySelectorAll('[id]')].map(e => e.id),
  twice: [...document.querySelectorAll('[id]')].map(e => e.id)
    .filter((id, i, all) => all.indexOf(id) !== i),
  pictures: [...document.querySelectorAll('img')].map(i => ({
    src: i.getAttribute('src').slice(0, 80), alt: i.getAttribute('alt'),
    decorates: i.alt === '' && !i.closest('main'),
    loaded: i.complete && i.naturalWidth > 0})),
  fonts: [...document.fonts].filter(f => f.status === 'error').map(f => f.family),
  math: [...document.querySelectorAll('math')]
    .filter(m => m.checkVisibility() && !m.getBoundingClientRect().width).length,
  text: document.querySelector('article, main').innerText,
  tables: [...document.querySelectorAll('main p, main .cell_output pre')]
    .map(e => e.innerText).filter(text => /\\|-{3,}/.test(text))
    .concat([...document.querySelectorAll('main pre')].map(e => e.innerText)
      .filter(text => /^\\s*\\|.*\\n\\s*\\|[ :|-]*-{3}/m.test(text))),
  wide: [...document.querySelectorAll('main pre')]
    .filter(p => p.checkVisibility() && p.scrollWidth > p.clientWidth + 1)
    .map(p => p.innerText.split('\\n').sort((a, b) => b.length - a.length)[0]),
  cut: [...document.querySelectorAll('.bd-sidebar-secondary a')]
    .filter(a => a.scrollWidth > a.clientWidth + 1 || a.getBoundingClientRect().right > innerWidth)
    .map(a => a.innerText),
  tall: [...document.querySelectorAll('.cell_output')]
    .filter(o => o.offsetHeight > 901).map(o => o.offsetHeight),
})'''


@pytest.fixture(scope='session')
def visits(site, address, browser):
    """What each page says of itself on a desk: facts, errors on the console, requests that failed
    or went elsewhere."""
    seen = {}
    context = browser.new_context(viewport=dict(width=1280, height=900))
    context.set_default_timeout(300_000)
    for name in pages(site):
        page, faults = context.new_page(), []
        page.on(
            'console',
            lambda m: (
                faults.append(f'console: {m.text}') if m.type in ('error', 'warning') else None
            ),
        )
        page.on('pageerror', lambda e: faults.append(f'error: {e}'))
        page.on('requestfailed', lambda r: faults.append(f'failed: {r.url}'))
        page.on(
            'request',
            lambda r: (
                None
                if r.url.startswith((address, 'data:'))
                else faults.append(f'elsewhere: {r.url}')
            ),
        )
        page.on(
            'response', lambda r: faults.append(f'{r.status}: {r.url}') if r.status >= 400 else None
        )
        page.goto(address + name)
        page.evaluate('document.querySelectorAll("img").forEach(i => i.loading = "eager")')
        page.evaluate('Promise.all([...document.fonts].map(f => f.load().catch(() => 0)))')
        page.wait_for_load_state('networkidle')
        seen[name] = dict(page.evaluate(FACTS), faults=faults)
        page.close()
    context.close()
    return seen


def test_every_page_opens_cleanly(visits):
    assert {f'{n}.html' for n in NOTEBOOKS} <= set(visits)
    assert {
        'commands.html',
        'models.html',
        'report.html',
        'glossary.html',
        'differences.html',
        'search.html',
        'api/index.html',
    } <= set(visits)
    assert {n: v['faults'] for n, v in visits.items() if v['faults']} == {}
    assert {n: v['fonts'] for n, v in visits.items() if v['fonts']} == {}
    assert {n: v['twice'] for n, v in visits.items() if v['twice']} == {}
    # tables are tables, not text and not what stands indented; code may write one
    assert {n: v['tables'] for n, v in visits.items() if v['tables']} == {}


def test_pages_fit_a_desk(visits, site):
    "No code scrolls sideways at 1,280 pixels, no contents are cut, no output is endless."
    for what in ('wide', 'cut', 'tall'):
        assert {n: v[what] for n, v in visits.items() if v[what]} == {}, what
    for name, facts in visits.items():
        page = site / name
        files = {page, *((page.parent / p['src']).resolve() for p in facts['pictures'])}
        weight = sum(f.stat().st_size for f in files if f.is_file())
        assert weight < 1_500_000, (name, weight)


def test_long_outputs_fold(open_page, address):
    page = open_page(address + 'lab/02_speed.html')
    folded = page.locator('.cell_output.tall')
    count, button = folded.count(), page.locator('button.unfold').first
    assert count and button.get_attribute('aria-expanded') == 'false'
    button.click()
    assert folded.count() == count - 1 and button.get_attribute('aria-expanded') == 'true'
    button.click()
    assert folded.count() == count


def test_explanations_are_found_first(open_page, address):
    for word in ('attract', 'predict', 'oks'):
        page = open_page(f'{address}search.html?q={word}')
        page.locator('ul.search li a').first.wait_for()
        page.wait_for_function("document.querySelector('.search-summary').innerText.match(/found/)")
        links = page.locator('ul.search li > a').evaluate_all('links => links.map(a => a.href)')
        listed = ['/api/' in link for link in links]
        assert False in listed and listed == sorted(listed), word


def test_the_api_begins_with_what_people_use(open_page, address):
    page = open_page(address + 'api/index.html')
    first = page.locator('article table').first.inner_text()
    for call in ('from_pretrained', 'predict', 'optimize', 'keypoints', 'show', 'save'):
        assert call in first


def test_notebooks_lead_on():
    for name in NOTEBOOKS[1:]:
        cells = nbformat.read(ROOT / f'nbs/{name}.ipynb', 4).cells
        last = cells[-1].source.splitlines()[-1]
        assert re.match(r'(Next|Back).*\[.*\]\(.*\.ipynb\)', last), name


def test_links_and_anchors_lead_somewhere(visits, address):
    broken, outside = [], set()
    for name, facts in visits.items():
        for link in facts['links']:
            url, anchor = urldefrag(link)
            if not url.startswith(address):
                outside.add(link)
            elif (
                (target := unquote(url.removeprefix(address)).split('?')[0] or 'index.html')
                not in visits
                or anchor
                and unquote(anchor) not in visits[target]['ids']
            ):
                broken.append((name, link))
    assert broken == []
    assert all(link.startswith('https://') for link in outside), outside


def test_pictures_are_there_and_described(visits):
    for name, facts in visits.items():
        for picture in facts['pictures']:
            assert picture['loaded'], (name, picture)
            assert picture['alt'] or picture['decorates'], (name, picture)
    for name in NOTEBOOKS:  # every picture of the notebook is on its page
        cells = nbformat.read(ROOT / f'nbs/{name}.ipynb', 4).cells
        stored = sum(
            any(k.startswith('image/') for k in o.get('data', {}))
            for c in cells
            if c.cell_type == 'code' and '#| hide' not in c.source
            for o in c.outputs
        )
        assert (
            len([p for p in visits[f'{name}.html']['pictures'] if '_images/' in p['src']]) >= stored
        ), name


def test_equations_are_set_and_numbered(visits):
    anchors = {i for facts in visits.values() for i in facts['ids']}  # where a number comes first
    for name in NOTEBOOKS:
        text, facts = (
            (ROOT / f'nbs/{name}.ipynb').read_text(encoding='utf-8'),
            visits[f'{name}.html'],
        )
        for number in re.findall(r'\\\\tag\{(\w+)\}', text):
            assert f'({number})' in facts['text'] and f'eq-{number}' in anchors, (name, number)
        assert not facts['math'] and '$$' not in facts['text'] and '\\tag' not in facts['text']


def test_pages_follow_one_another(open_page, address):
    page, order = open_page(address + 'index.html'), ['index']
    while (link := page.locator('a.right-next')).count():
        page.goto(link.evaluate('a => a.href'))
        order.append(page.url.removeprefix(address).removesuffix('.html'))
        assert (
            page.locator('a.left-prev')
            .evaluate('a => a.href')
            .removesuffix('.html')
            .endswith(order[-2])
        )
    assert [n for n in order if n in NOTEBOOKS] == NOTEBOOKS
    assert len(order) == len(set(order))
    assert {
        'commands',
        'report',
        'models',
        'glossary',
        'differences',
        'api/index',
    } <= set(order)
    captions = page.locator('nav .caption-text').all_inner_texts()
    assert list(dict.fromkeys(captions)) == [*build.PARTS.values(), 'Reference']


@pytest.mark.parametrize('kind', ['server', 'disk'])
def test_search_finds_a_word(open_page, site, address, kind):
    page, errors = (
        open_page((address if kind == 'server' else site.as_uri() + '/') + 'index.html'),
        [],
    )
    page.on('console', lambda m: errors.append(m.text) if m.type == 'error' else None)
    page.locator('button.search-button:visible, .search-button-field:visible').first.click()
    page.locator('input[type=search]:visible').fill('hsigmoid')
    page.keyboard.press('Enter')
    result = page.locator('ul.search li a').first
    result.wait_for()
    result.click()
    page.wait_for_url(re.compile(r'cmp'))
    assert 'hsigmoid' in page.locator('article').inner_text()
    assert errors == []


def test_dark_mode_switches_and_stays(open_page, address):
    page = open_page(address + '04_kem.html', color_scheme='light')
    ground = '''() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g)
      .slice(0, 3).reduce((a, b) => a + +b, 0)'''
    assert page.evaluate(ground) > 600
    page.locator('.theme-switch-button:visible').first.click()
    page.locator('.theme-change-button[data-mode=dark]:visible').first.click()
    page.wait_for_function(f'({ground})() < 200')  # colours fade
    page.goto(address + 'api/kem.html')
    page.wait_for_function(f'({ground})() < 200')
    assert open_page(address + 'index.html', color_scheme='dark').evaluate(ground) < 200


def test_frames_move_without_a_kernel(open_page, address):
    page = open_page(address + 'lab/04_explore.html')
    twins = page.locator('.frames').all()
    assert len(twins) == 5
    assert not page.locator('.widget-vbox, script[type*="jupyter.widget"]').count()
    for twin in twins:
        visible, slider = twin.locator('.frame:visible'), twin.locator('input[type=range]')
        before, label = (
            visible.locator('img').get_attribute('src'),
            slider.get_attribute('aria-valuetext'),
        )
        slider.focus()
        page.keyboard.press('ArrowRight')
        assert visible.count() == 1 and visible.locator('img').get_attribute('src') != before
        assert slider.get_attribute('aria-valuetext') != label


def test_solutions_fold_out(open_page, address):
    for name in NOTEBOOKS[1:]:
        written = (ROOT / f'nbs/{name}.ipynb').read_text(encoding='utf-8')
        count = written.count('<summary>Solution</summary>')
        if not count:
            continue
        page = open_page(f'{address}{name}.html')
        solutions = page.locator('details:has(> summary:text-is("Solution"))')
        assert solutions.count() == count, name
        text = solutions.first.locator(':scope > :not(summary)').first
        assert not text.is_visible(), name
        solutions.first.locator('summary').click()
        assert text.is_visible(), name


def test_a_phone_scrolls_one_way_only(open_page, site, address):
    page, wide = open_page(address, 360, 740, is_mobile=True, has_touch=True), {}
    for name in pages(site):
        page.goto(address + name)
        widths = page.evaluate(
            '[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]'
        )
        if max(widths) > 360:
            wide[name] = widths
    assert wide == {}


AXE = """only => axe.run({resultTypes: ['violations'], ...(only && {runOnly: [only]})})
  .then(r => r.violations.filter(v => ['serious', 'critical'].includes(v.impact))
  .map(v => [v.id, v.nodes.length, v.nodes[0].html.slice(0, 150),
             v.nodes[0].failureSummary.slice(0, 250)]))"""


@pytest.mark.parametrize(
    'scheme, only', [('light', None), ('dark', 'color-contrast')]
)  # what is not a colour is the same in both
def test_axe_finds_no_serious_fault(open_page, site, address, axe, scheme, only):
    page, found = open_page(address, color_scheme=scheme), {}
    for name in pages(site):
        page.goto(address + name)
        # what opens fades in
        page.add_style_tag(content='* { transition: none !important; animation: none !important }')
        page.evaluate('document.querySelectorAll("details").forEach(d => d.open = true)')
        page.add_script_tag(path=str(axe))
        if faults := page.evaluate(AXE, only):
            found[name] = faults
    assert found == {}


def test_every_public_name_has_its_place(visits):
    for path in build.notebooks():
        if not (module := build.module_of(nbformat.read(path, 4))):
            continue
        module = module.replace('.', '/')  # one of a package in the package
        facts = visits[f'api/{module.split("/")[-1]}.html']
        for name in api.names(ROOT / f'logocap/{module}.py'):
            assert name.split('.')[-1] in facts['text'], (module, name)
    text = visits['api/kem.html']['text']
    assert 'poses: torch.Tensor, size: int = 11' in text
    assert 'B×N×K×2, input px' in text
    assert 'Source of local_mesh' in text


def test_commands_show_their_help(visits):
    for command in (line.split('=')[0] for line in build.cfg['console_scripts'].split()):
        assert f'usage: {command}' in visits['commands.html']['text']


def test_report_and_model_cards_appear_when_they_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(build, 'ROOT', tmp_path)
    (tmp_path / 'nbs').mkdir()
    shown = nbformat.v4.new_output('stream', text='| a |\n|--:|\n| 7 |\n')
    cells = [
        nbformat.v4.new_markdown_cell('Words.'),
        *(
            nbformat.v4.new_code_cell(s, outputs=[shown])
            for s in ('#| echo: false\nshow()', 'show()')
        ),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / 'nbs/index.ipynb')
    assert 'no weights of its own' in build.models_page(tmp_path)
    report = build.report_page(tmp_path)
    assert 'Nothing has been written' in report
    assert report.count('| 7 |') == 1
    assert 'Words.' in report
    (tmp_path / 'data/weights').mkdir(parents=True)
    (tmp_path / 'data/weights/README.md').write_text(
        '# Cards\n\nSee [data](../README.md), [people](../../nbs/people/04_drawn.ipynb) '
        'and ![a curve](curve.png).\n'
    )
    (tmp_path / 'data/weights/curve.png').write_bytes(b'curve')
    cards = build.models_page(tmp_path)
    assert (
        f'[data]({build.BLOB}/data/README.md), [people](people/04_drawn.ipynb) '
        'and ![a curve](weights-curve.png)' in cards
    )
    assert (tmp_path / 'weights-curve.png').read_bytes() == b'curve'
    (tmp_path / 'tables').mkdir()
    (tmp_path / 'tables/ablations.md').write_text(
        '# Ablations\n\nHow it was made:\n\n```json\n{\n}\n```\n'
    )
    (tmp_path / 'tables/table1.md').write_text(
        '# Table 1\n\n| a |\n|---|\n| 1 |\n\n[more](table1.json)\n'
    )
    for name in ('bound.png', 'figure4.png', 'figure4.svg', 'other.png'):
        (tmp_path / 'tables' / name).write_bytes(b'picture')
    report = build.report_page(tmp_path)
    assert '## Table 1\n\n| a |' in report and 'table1.json' not in report
    assert (
        '<details><summary>How it was made</summary>\n\n```json\n{\n}\n```\n\n</details>' in report
    )
    places = [
        report.index(part)
        for part in (
            '## Table 1',
            '](tables-bound.png)',
            '## Ablations',
            '## Figure 4',
            '](tables-figure4.png)',
            '](tables-other.png)',
        )
    ]
    assert places == sorted(places) and '.svg' not in report
    assert '](tables-bound.png)' in report
    assert (tmp_path / 'tables-bound.png').read_bytes() == b'picture'


def test_cells_become_what_their_directives_say():
    def staged(source, above='', *outputs):
        cell = nbformat.v4.new_code_cell(source, outputs=list(outputs))
        build.stage_cell(cell, above, 'here')
        return cell

    picture = nbformat.v4.new_output('display_data', {'image/png': 'x'})

    def alt(cell):
        return cell.metadata['mystnb']['image']['alt']

    assert staged('#| export\nx = 1').metadata['tags'] == ['export']
    assert staged('#| export\nx = 1').source == 'x = 1'
    assert staged('#| hide\nx').metadata['tags'] == ['remove-cell']
    tests = staged('x = 1\n' * 7 + 'test_eq(x, 1)')
    assert tests.metadata['tags'] == ['hide-input']
    assert staged('test_eq(x, 1)').metadata['tags'] == staged('x = 1\n' * 9).metadata['tags'] == []
    assert (
        alt(staged("ax.set(title=f'level {n}')", 'Three levels.', picture))
        == 'level …: Three levels.'
    )
    assert (
        alt(staged("#| fig-alt: Two lines.\nax.set(title='One')", 'Words.', picture))
        == 'Two lines.'
    )
    assert (
        alt(staged("ax.set(title=f'loss {n}'); fig.suptitle('All of it')", '', picture))
        == 'loss …; All of it'
    )
    assert (
        alt(
            staged(
                "for ax, t in zip(axes, ('left side', 'right side')): ax.set(title=t)", '', picture
            )
        )
        == 'left side; right side'
    )
    assert (
        alt(staged('plot()', '## Head\n\nOther.\n\nWhat `it` [says](x.ipynb):', picture))
        == 'What it says'
    )
    with pytest.raises(ValueError, match='fig-alt'):
        staged('plot()', '', picture)
    printed = nbformat.v4.new_output('stream', text='before\n| a |\n|--:|\n| 1 |\nafter\n')
    assert [list(o.get('data', {'text': 0})) for o in staged('x', '', printed).outputs] == [
        ['text'],
        ['text/markdown'],
        ['text'],
    ]
    printed.text += 'after ' * 20 + '\n'
    assert 'text' in staged('x', '', printed).outputs[-1]  # two lines
    printed.text = '| a |\n|--:|\n| 1 |\n' + 'a note ' * 20 + '\n'
    assert [list(o.data) for o in staged('x', '', printed).outputs] == [['text/markdown']] * 2


def test_formulas_become_mathml_or_an_error():
    assert '<mfrac>' in mathml(r'\frac{a}{b}')
    assert 'stretchy="true"' in mathml(r'a \xrightarrow[x]{\text{long label}} b')
    with pytest.raises(ValueError, match='nosuchcommand'):
        mathml(r'\nosuchcommand{x}')


def test_names_in_prose_become_links():
    pages = {'adapt': 'api/adaptation.md'}
    assert (
        build.doclinks('see `adapt` and `adapt()`', pages)
        == 'see [`adapt`](api/adaptation.md#adapt) and [`adapt()`](api/adaptation.md#adapt)'
    )
    for text in ('## `adapt`', '[`adapt`](x)', '```\n`adapt`\n```', '`other`'):
        assert build.doclinks(text, pages) == text
