"""The room nbs/lab/01_report.ipynb: kinds of errors on made-up detections, what refinement returns,
the page in a real browser, every file of `--table all`."""

import json
import re
import numpy as np
import pytest
from logocap.keypoints import KEYPOINTS, example_people, people_tensors
from logocap.coco import METRICS, CocoFolder, coco_results
from logocap.lab.compare import comparison_lines
from logocap.lab.report import (
    ERRORS,
    Job,
    Part,
    choose_networks,
    count_errors,
    keypoint_errors,
    make_parts,
    missing_networks,
    plan_steps,
    refinement,
    report_page,
)
from logocap.tables import ABLATION_ROWS, Detector, own_data, save_figure


@pytest.fixture(scope='module')
def drawn():
    return CocoFolder(own_data('people'), 'val')


def test_keypoints_that_are_not_labeled_count_as_nothing():
    people, areas, _ = people_tensors(example_people()['annotations'])
    assert (
        (keypoint_errors(people[2, :, :2], people, areas, 2) == -1) == (people[2, :, 2] == 0)
    ).all()


def test_errors_of_made_up_detections(tmp_path):
    "The second method has its noise cut by half, but mirrors one wrist in four."
    rng, wrist = np.random.default_rng(0), KEYPOINTS.index('left_wrist')
    pages = dict(
        example_people(),
        images=[dict(id=i, file_name=f'{i}.png', width=320, height=256) for i in range(12)],
        annotations=[],
    )
    for i in range(12):
        for n, a in enumerate(example_people()['annotations']):
            pages['annotations'].append(dict(a, id=3 * i + n + 1, image_id=i))
    for name in ('annotations', 'val'):
        (tmp_path / name).mkdir()
    (tmp_path / 'annotations/person_keypoints_val.json').write_text(json.dumps(pages))
    folder = CocoFolder(tmp_path, 'val')
    truth = np.concatenate([folder.people(i)[0].numpy() for i in range(12)])

    def noisy(pixels):
        return np.concatenate(
            [truth[..., :2] + rng.normal(0, pixels, (36, 17, 2)), np.ones((36, 17, 1))], -1
        )

    def counted(poses):
        results = [
            r
            for i in range(12)
            for r in coco_results(i, poses[3 * i : 3 * i + 3], rng.uniform(0.5, 1, 3))
        ]
        return count_errors(folder, results, list(range(12)))

    mirrored = noisy(2.5)
    mirrored[::4, wrist, :2] = truth[::4, wrist + 1, :2]
    plain, wrong = counted(noisy(5)), counted(mirrored)
    assert sum(plain[e] for e in ERRORS) == pytest.approx(1, abs=1e-9)
    wrists = (truth[::4, wrist, 2] * truth[::4, wrist + 1, 2] > 0).sum() / (truth[..., 2] > 0).sum()
    assert wrong['inversion'] >= wrists  # and some eyes, which are near each other
    assert wrong['jitter'] < plain['jitter']


def test_refinement_of_a_network_that_finds_nobody(drawn, tiny, tmp_path):
    shown = refinement(
        Detector(drawn, tmp_path, device='cpu').load(tiny),
        drawn.image_path(0),
        *drawn.people(0)[:2],
    )
    assert shown['poses'].shape[1:] == (17, 3)


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    "A report of made-up numbers: a wide table, rows of the paper beside ours, a figure."
    from matplotlib.figure import Figure

    out = tmp_path_factory.mktemp('page')
    fig = Figure(figsize=(9, 3))
    fig.add_subplot().plot([1, 2])
    save_figure(fig, out, 'line')
    made = dict(mean=dict.fromkeys(METRICS, 27.0), spread=dict.fromkeys(METRICS, 0.6))
    lines = comparison_lines('table2', dict(here={'LOGO-CAP-W8': made}))
    wide = [['', *(f'val, {m}' for m in 3 * METRICS)], ['CenterNet, with matching', *15 * ['22.6']]]
    parts = [
        Part('A & B', 'as `optimize` has it', [['', 'AP'], ['x', '1 < 2']], record=dict(seconds=1)),
        Part('Table 2', '', lines, found='LOGO-CAP reaches **27.0** AP.'),
        Part('Wide', '', wide, 'line', remarks=['A remark.']),
    ]
    (out / 'report.html').write_text(report_page(parts, out), encoding='utf-8')
    return out / 'report.html'


def test_page(page):
    text = page.read_text(encoding='utf-8')
    assert '<h2>A &amp; B</h2>' in text
    assert '<td>1 &lt; 2</td>' in text
    assert 'as <code>optimize</code> has it' in text and '`' not in text
    assert text.count('LOGO-CAP reaches <b>27.0</b> AP.') == 2  # in its section and at the top
    # nothing is loaded from elsewhere
    assert not re.search(r'(src|href)="(?!#|data:)', text)


FACTS = '''() => ({
  page: [document.documentElement.scrollWidth, innerWidth],
  boxes: [...document.querySelectorAll('.wide')].map(box => ({
    name: box.ariaLabel, needs: box.scrollWidth, has: box.clientWidth,
    first: box.querySelector('tbody th')?.getBoundingClientRect().width ?? 0,
    shadow: getComputedStyle(box).backgroundImage.includes('gradient')})),
  colors: [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color],
  links: [...document.querySelectorAll('nav a')].map(a => a.getAttribute('href').slice(1)),
  ids: [...document.querySelectorAll('section')].map(s => s.id)})'''


@pytest.mark.parametrize('width', (1280, 1920))
def test_everything_is_in_view_on_a_desk(page, open_page, width):
    "No table is wider than its box, and every line of the contents leads to a section."
    facts = open_page(page.as_uri(), width).evaluate(FACTS)
    assert facts['boxes'] and all(box['needs'] <= box['has'] for box in facts['boxes'])
    assert facts['page'][0] <= facts['page'][1]
    assert facts['links'] == facts['ids']


def test_phone(page, open_page):
    """The page itself does not scroll sideways; names leave room for numbers, stay in view when a
    table scrolls, and a shadow says that it does."""
    phone = open_page(page.as_uri(), 390, 844)
    facts = phone.evaluate(FACTS)
    assert facts['page'][0] <= facts['page'][1]
    for box in facts['boxes']:
        assert box['first'] < box['has'] / 2 and box['shadow'], box
    table = phone.get_by_role('region', name='Wide')
    name = table.locator('tbody th').first
    before = name.bounding_box()['x']
    assert table.evaluate('box => { box.scrollLeft = 9999; return box.scrollLeft }') > 100
    assert name.bounding_box()['x'] == before
    ours = phone.get_by_role('region', name='Table 2').locator('td.here').first.bounding_box()
    assert ours['x'] + ours['width'] < 390  # the paper's AP and ours, without scrolling


def test_dark(page, open_page):
    "As the system has it, figures included: their white is the page's."
    light = open_page(page.as_uri()).evaluate(FACTS)['colors']
    dark_page = open_page(page.as_uri(), color_scheme='dark')
    dark = dark_page.evaluate(FACTS)['colors']
    assert light[0] == 'rgb(255, 255, 255)' and dark[0] != light[0] and dark[1] != light[1]
    fills = dark_page.evaluate(
        "[...document.querySelectorAll('figure svg path')].map(p => getComputedStyle(p).fill)"
    )
    assert dark[0] in fills and 'rgb(255, 255, 255)' not in fills


def test_networks_that_are_named():
    assert choose_networks(['a'], ['b']) == dict(
        weights=['a'], baseline=['b'], ablated={}, prior=[]
    )
    assert choose_networks(['a'], prior=['c'])['prior'] == ['c']


def test_a_network_looks_once(drawn, tmp_path):
    "All levels of all parts at the first part that asks, and what is missing is named."
    detector = Detector(drawn, tmp_path, device='cpu', limit=2)
    networks = dict(weights=['people-11'], baseline=['baseline-11'], ablated={}, prior=[])
    job = Job(detector, networks, tmp_path)
    steps = plan_steps(job, ['1', 'ablations', 'intervals', '2', '3', 'errors'])
    first, *later = steps.values()
    assert [(s.weights, set(s.levels)) for s in first] == [
        ('people-11', set(ABLATION_ROWS)),
        ('baseline-11', {'none'}),
    ]
    assert [s.detector.folder.split for part in later for s in part] == 2 * ['occluded']
    (text,) = missing_networks(job, 'prior')
    assert 'centernet, dekr, associative_embedding, logocap' in text
    assert 'logocap-train --method centernet' in text and '--prior runs/' in text
    (text,) = missing_networks(job, 'ablations')
    assert 'window15' in text and '--ablated paper=runs/paper/model.safetensors' in text


def test_everything(drawn, tiny, tmp_path, capsys):
    "Every file is there, and what is asked for again is shown with the record of the first time."
    networks = dict(weights=[tiny], baseline=[tiny], ablated={}, prior=[tiny, 'centernet-21'])
    make_parts(
        'all',
        Detector(drawn, tmp_path / 'cache', 64, False, device='cpu', limit=2),
        networks,
        tmp_path,
    )
    first, said = capsys.readouterr()
    assert '3 networks look at' in said.splitlines()[0] or '2 networks look at' in said
    assert said.count('\n') == 1 + 2 + 4  # the plan; two splits of two networks, and tiny again
    names = {f.name for f in tmp_path.iterdir()}
    tables = ('table1', 'table2', 'table3', 'table4', 'ablations', 'intervals', 'errors', 'prior')
    assert {f'{t}.{form}' for t in tables for form in ('md', 'csv', 'tex', 'json')} <= names
    assert {f'{f}.{form}' for f in ('figure2', 'figure4', 'errors') for form in ('png', 'svg')} | {
        'report.html'
    } <= names
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir() if f.is_file()}
    again = Detector(drawn, tmp_path / 'cache', 64, False, device='cpu', limit=2)
    make_parts('all', again, networks, tmp_path)
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir() if f.is_file()} == before
    assert again.computed == 0 and capsys.readouterr().out == first
    with pytest.raises(ValueError, match='no networks of other methods'):
        make_parts('prior', again, dict(networks, prior=[]), tmp_path)


def test_spreadsheets_hold_numbers(drawn, tiny, tmp_path):
    import pandas

    # no baseline and nothing trained otherwise: what is there is enough for every table
    networks = dict(weights=[tiny, tiny], baseline=[], ablated={}, prior=[])
    detector = Detector(drawn, tmp_path / 'cache', 64, False, device='cpu', limit=2)
    words_first = dict(table1=1, table2=2, table3=2, table4=2, ablations=1, intervals=1)
    for name, words in words_first.items():
        make_parts(name.removeprefix('table'), detector, networks, tmp_path)
        frame = pandas.read_csv(tmp_path / f'{name}.csv')
        numbers = frame.iloc[:, words:].select_dtypes('number')
        assert list(numbers) == list(frame)[words:]
