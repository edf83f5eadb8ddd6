"""The room nbs/11c_report.ipynb: kinds of errors on made-up detections, what refinement returns,
the page, every file of `--table all`."""

import json
import numpy as np
import pytest
from logocap.keypoints import KEYPOINTS, example_people, people_tensors
from logocap.coco import CocoFolder, coco_results
from logocap.lab.report import (
    ERRORS,
    choose_networks,
    count_errors,
    keypoint_errors,
    make_parts,
    refinement,
    report_page,
    save_figure,
)
from logocap.tables import Detector, own_data


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


def test_page(tmp_path):
    from matplotlib.figure import Figure

    fig = Figure(figsize=(3, 2))
    fig.add_subplot().plot([1, 2])
    assert save_figure(fig, tmp_path, 'line') == save_figure(fig, tmp_path, 'again')
    assert (tmp_path / 'line.png').read_bytes() == (tmp_path / 'again.png').read_bytes()
    page = report_page(
        [('A & B', [['', 'AP'], ['x', '1 < 2']], 'note', tmp_path / 'line.png', dict(seconds=1))]
    )
    assert '<h2>A &amp; B</h2>' in page
    assert '<td>1 &lt; 2</td>' in page
    assert 'src="data:image/png;base64,' in page
    assert 'http' not in page.replace('http://www.w3.org', '')


def test_networks_that_are_named():
    assert choose_networks(['a'], ['b']) == dict(
        weights=['a'], baseline=['b'], ablated={}, prior=[]
    )
    assert choose_networks(['a'], prior=['c'])['prior'] == ['c']


def test_everything(drawn, tiny, tmp_path, capsys):
    "Every file is there, and a table that is asked for again is not computed again."
    networks = dict(weights=[tiny], baseline=[tiny], ablated={}, prior=[tiny, 'centernet-21'])
    make_parts(
        'all',
        Detector(drawn, tmp_path / 'cache', 64, False, device='cpu', limit=2),
        networks,
        tmp_path,
    )
    names = {f.name for f in tmp_path.iterdir()}
    tables = ('table1', 'table2', 'table3', 'table4', 'ablations', 'intervals', 'errors', 'prior')
    assert {f'{t}.{form}' for t in tables for form in ('md', 'csv', 'tex', 'json')} <= names
    assert {f'{f}.{form}' for f in ('figure2', 'figure4', 'errors') for form in ('png', 'svg')} | {
        'report.html'
    } <= names
    before = json.loads((tmp_path / 'table2.json').read_text())['here']
    again = Detector(drawn, tmp_path / 'cache', 64, False, device='cpu', limit=2)
    make_parts('2', again, networks, tmp_path)
    assert json.loads((tmp_path / 'table2.json').read_text())['here'] == before
    assert again.computed == 0
    with pytest.raises(ValueError, match='no networks of other methods'):
        make_parts('prior', again, dict(networks, prior=[]), tmp_path)
