"""Every way to the tables, as a user types it: several seeds, other methods' results, OCHuman's
layout, the test server's file, bad input."""

import json
import shutil
import zipfile
import pytest
from agreement import ties_allowed
from conftest import ROOT
from test_commands import fails
from logocap.tables import paper, paper_rows, quoted_differences

SMALL = ('--short-side', 64, '--device', 'cpu', '--limit', 2)


def test_paper_tables():
    """The file has every row of the paper, and agrees with the differences and figures that its
    text quotes."""
    assert paper() == json.loads((ROOT / 'data/paper_tables.json').read_text(encoding='utf-8'))
    assert [len(paper_rows(f'table{n}')) for n in (1, 2, 3, 4)] == [3, 15, 9, 7]
    wrong = {claim: (said, given) for claim, said, given in quoted_differences() if said != given}
    assert wrong == {'LOGO-CAP-W48 over AE-W48, test-dev': (2.5, 2.4)}
    assert '2.4' in paper()['contradictions'][0]
    assert len(quoted_differences()) == 10
    for q in paper()['quoted']:
        assert paper_rows(q['table'])[q['row']][q['column']]['AP'] == q['AP']
    for name in ('HGG', 'SimplePose'):
        assert paper_rows('table2')[name]['mark'] == {'test-dev': '†'}
    rescoring = {n: r['rescoring'] for n, r in paper_rows('table2').items() if 'rescoring' in r}
    assert rescoring == {
        'DEKR-W32-rescored': True,
        'DEKR-W48-rescored': True,
        'DEKR-W32': False,
        'DEKR-W48': False,
    }
    for table in ('table2', 'table3'):
        for row in paper_rows(table).values():
            for split in paper()['tables'][table]['columns']:
                cells = row[split]
                assert all(0 < v < 100 for v in cells.values()), row['name']
                if 'AP50' in cells:
                    assert cells['AP50'] > cells['AP75'] > cells['AP']
                    assert row['name'] == 'HGG' and split == 'val' or cells['APM'] < cells['APL']
    for row in paper_rows('table4').values():
        assert row['fps'] == pytest.approx(1000 / row['ms'], rel=0.01)
        assert row['AP'] == paper_rows('table2')[row['name']]['val']['AP']
    assert set(
        map(
            str,
            (c for t in (2, 3, 4) for r in paper_rows(f'table{t}').values() for c in r['citation']),
        )
    ) <= set(paper()['citations'])


def test_two_seeds_and_a_baseline(run, coco_mini, tiny, tmp_path):
    shutil.copy(tiny, tmp_path / 'other.safetensors')
    args = (
        '--data',
        coco_mini,
        '--weights',
        tiny,
        tmp_path / 'other.safetensors',
        '--baseline',
        tiny,
        *SMALL,
        '--out',
        tmp_path / 'out',
    )
    done = run('logocap-tables', *args)
    assert done.returncode == 0, done.stderr
    first = json.loads((tmp_path / 'out/table1.json').read_text())
    assert len(first['per_seed']['LOGO-CAP']) == 2
    assert len(first['per_seed']['Baseline']) == 1
    assert first['baseline'] == 'trained alone'
    assert first['spread']['LOGO-CAP']['AP'] == 0
    assert first['spread']['Baseline'] is None
    assert '± 0.0' in done.stdout
    assert first['provenance']['options']['flip_test'] and first['provenance']['detected_now'] > 0
    again = run('logocap-tables', *args)
    assert again.returncode == 0 and again.stdout == done.stdout
    assert 'nothing to detect' in again.stderr
    assert json.loads((tmp_path / 'out/table1.json').read_text()) == first  # and its record
    assert run('logocap-tables', *args, '--fresh').returncode == 0
    fresh = json.loads((tmp_path / 'out/table1.json').read_text())
    assert fresh['rows'] == first['rows'] and fresh['provenance']['detected_now'] > 0


def test_results_of_another_method(run, parity, tiny, tmp_path):
    "The recorded detections of the released implementation, as another method's: its AP comes out."
    done = run(
        'logocap-tables',
        '--table',
        2,
        '--data',
        parity / 'coco',
        '--weights',
        tiny,
        '--short-side',
        64,
        '--no-flip-test',
        '--device',
        'cpu',
        '--results',
        f'DEKR-W32={parity / "detections-full-noflip.json"}',
        f'mine={parity / "detections-full-noflip.json"}',
        '--out',
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / 'table2.json').read_text())
    assert abs(made['here']['DEKR-W32']['mean']['AP'] - 80.96) < 0.3
    assert made['here']['mine'] == made['here']['DEKR-W32']
    assert made['provenance']['results']['mine']['sha256']
    text = (tmp_path / 'table2.md').read_text()
    assert text.count('reported') == 15  # 14 rows, and what the word means
    assert 'not COCO val2017' in text and '67.6†' in text
    assert r'\toprule' in (tmp_path / 'table2.tex').read_text()
    assert r'67.6$^\dagger$' in (tmp_path / 'table2.tex').read_text()


def test_several_scales(run, parity, tmp_path):
    done = run(
        'logocap-tables',
        '--data',
        parity / 'coco',
        '--weights',
        parity / 'w8.pth.tar',
        '--short-side',
        256,
        '--no-flip-test',
        '--scales',
        '0.5',
        '1',
        '2',
        '--limit',
        1,
        '--device',
        'cpu',
        '--out',
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / 'table1.json').read_text())['provenance']['options'][
        'scales'
    ] == [0.5, 1, 2]


@pytest.fixture(scope='module')
def ochuman(coco_mini, tmp_path_factory):
    "Photographs in OCHuman's layout."
    root = tmp_path_factory.mktemp('ochuman')
    shutil.copytree(coco_mini / 'val2017', root / 'images')
    shutil.copy(
        coco_mini / 'annotations/person_keypoints_val2017.json',
        root / 'ochuman_coco_format_val_range_0.00_1.00.json',
    )
    return root


def test_ochuman(run, ochuman, tiny, tmp_path):
    done = run(
        'logocap-tables',
        '--table',
        3,
        '--data',
        ochuman,
        '--split',
        'val',
        '--ochuman',
        ochuman,
        '--weights',
        tiny,
        *SMALL,
        '--out',
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / 'table3.json').read_text())
    assert list(made['here']) == ['val'] and list(made['here']['val']) == ['LOGO-CAP-W4']
    assert '23 images, OCHuman 2,500' in (tmp_path / 'table3.md').read_text()
    assert len(made['paper']) == 9


def test_occluded_split_in_place_of_ochuman(run, tiny, tmp_path):
    done = run('logocap-tables', '--table', 3, '--weights', tiny, *SMALL, '--out', tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(json.loads((tmp_path / 'table3.json').read_text())['here']) == ['occluded']
    assert "in OCHuman's place" in done.stdout
    assert not json.loads((tmp_path / 'table3.json').read_text())['provenance']['occluded'][
        'options'
    ]['flip_test']


def test_wrong_order_of_keypoints(run, ochuman, tiny, tmp_path):
    shutil.copytree(ochuman, tmp_path / 'o')
    file = tmp_path / 'o/ochuman_coco_format_val_range_0.00_1.00.json'
    data = json.loads(file.read_text())
    data['categories'][0]['keypoints'].reverse()
    file.write_text(json.dumps(data))
    fails(
        run(
            'logocap-tables',
            '--table',
            3,
            '--data',
            tmp_path / 'o',
            '--split',
            'val',
            '--weights',
            tiny,
            *SMALL,
            '--out',
            tmp_path / 'out',
        ),
        "not in COCO's order",
        'logocap-tables',
    )
    done = run('logocap-data', tmp_path / 'o', '--no-pictures')
    assert done.returncode == 1
    assert "not in COCO's order" in done.stdout


def test_test_dev(run, coco_mini, parity, tmp_path):
    "Pictures without annotations become a zip that the server takes."
    data = json.loads((coco_mini / 'annotations/person_keypoints_val2017.json').read_text())
    data.pop('annotations')
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations/image_info_test-dev2017.json').write_text(json.dumps(data))
    shutil.copytree(coco_mini / 'val2017', tmp_path / 'test2017')
    args = (
        '--table',
        'test-dev',
        '--data',
        tmp_path,
        '--weights',
        parity / 'w8.pth.tar',
        '--short-side',
        256,
        '--no-flip-test',
        '--device',
        'cpu',
        '--limit',
        3,
        '--name',
        'tiny',
        '--out',
        tmp_path / 'out',
    )
    done = run('logocap-tables', *args)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / 'out/person_keypoints_test-dev2017_tiny_results.zip') as z:
        assert z.namelist() == ['person_keypoints_test-dev2017_tiny_results.json']
        rows = json.loads(z.read(z.namelist()[0]))
    assert rows
    assert set(rows[0]) == {'image_id', 'category_id', 'keypoints', 'score'}
    assert {r['category_id'] for r in rows} == {1}
    assert {r['image_id'] for r in rows} <= {i['id'] for i in data['images']}


def test_data(run, coco_mini, tmp_path):
    done = run('logocap-data', ROOT / 'data/people')
    assert done.returncode == 0
    assert 'val: sound, 300 images' in done.stdout
    assert 'occluded: sound, 200 images' in done.stdout
    done = run('logocap-data', coco_mini)
    assert done.returncode == 0  # a part, and sound
    part = 'a part of the data set: person_keypoints_val2017.json lists 23 of 5,000 images'
    assert f'val2017: {part}' in done.stdout and 'val2017: sound, 23 images' in done.stdout
    fails(run('logocap-data', tmp_path), 'no annotations in', 'logocap-data')


@pytest.mark.parametrize(
    'options, fault',
    (
        (('--results', 'HGG'), "results 'HGG': not of the form"),
        (('--results', 'HGG=none.json'), 'none.json: no such file or folder'),
        (('--ochuman', 'nowhere'), 'nowhere: no such file or folder'),
        (('--speed', 'none.json'), 'none.json: no such file of times'),
        (('--table', '7'), 'table 7'),
        (('--scales', 'one'), 'not numbers'),
        (('--scales', 'nan'), 'scales nan: numbers above 0'),
        (('--scales', '0.75'), 'scale 0.75'),
        (('--limit', 0), 'limit of 0'),
    ),
)
def test_bad_input(inside, tiny, tmp_path, options, fault):
    fails(
        inside('logocap-tables', '--weights', tiny, *SMALL, '--out', tmp_path / 'out', *options),
        fault,
        'logocap-tables',
    )
    assert not (tmp_path / 'out/table1.json').exists()
    assert not (tmp_path / 'out/table2.json').exists()


def test_fast_scorer_equals_pycocotools(coco_mini, parity):
    import numpy as np
    from logocap.coco import CocoFolder, average_precision
    from logocap.lab.compare import image_matches, weighted_ap

    folder, results = (
        CocoFolder(parity / 'coco'),
        json.loads((parity / 'detections-full-noflip.json').read_text()),
    )
    ids = folder.image_ids()
    ours = weighted_ap(image_matches(folder.coco, results, ids), np.ones((1, len(ids))))[0]
    assert abs(ours - average_precision(folder.coco, results, ids)['AP']) < 1e-9


def test_what_levels_share_changes_nothing(parity):
    """Candidates that count in no image left out, and levels read off the same stages: the same
    poses."""
    import torch
    from logocap.images import network_input
    from logocap.coco import CocoFolder
    from logocap.model import ABLATIONS, LEVELS, LogoCap

    model, folder = LogoCap.from_pretrained(parity / 'w8.pth.tar'), CocoFolder(parity / 'coco')
    x, _ = network_input(folder.image_path(folder.image_ids()[0]), 128)
    levels = (*LEVELS, *ABLATIONS)
    with torch.inference_mode():
        fields = model.fields(x[None])
        found = [model.poses_of(fields, x.shape[-2:], levels, trim) for trim in (False, True)]
    for level in levels:
        whole, quick = (f[level] for f in found)
        n = quick['valid'].shape[1]
        assert not whole['valid'][:, n:].any()
        assert torch.equal(whole['valid'][:, :n], quick['valid'])
        apart = (whole['poses'][:, :n] - quick['poses'])[..., :2].norm(dim=-1)
        ties = apart[quick['valid']] >= 1e-2
        assert ties.sum() <= ties_allowed(ties.numel()), level


@pytest.fixture(scope='module')
def blank_pages(tmp_path_factory):
    "Six blank pages with people annotated, and three tiny networks of random weights."
    import torch
    from PIL import Image
    from logocap.keypoints import example_people
    from logocap.model import LogoCap

    root = tmp_path_factory.mktemp('blank')
    (root / 'annotations').mkdir()
    (root / 'val').mkdir()
    pages = dict(example_people(), images=[], annotations=[])
    for i in range(6):
        pages['images'].append(dict(id=i, file_name=f'{i}.png', width=320, height=256))
        for n, a in enumerate(example_people()['annotations'][: 1 + i % 3]):
            pages['annotations'].append(dict(a, id=3 * i + n + 1, image_id=i))
        Image.new('RGB', (320, 256), 'white').save(root / 'val' / f'{i}.png')
    (root / 'annotations/person_keypoints_val.json').write_text(json.dumps(pages))
    for seed in (0, 1, 2):
        torch.manual_seed(seed)
        LogoCap(4, 8, 8, 4, (12, 10, 8), 3).save_pretrained(root / f'tiny-{seed}.safetensors')
    return root


def test_make_table1(blank_pages, tmp_path):
    "The files, and that nothing is computed twice."
    import numpy as np
    from logocap.tables import make_table1

    weights = blank_pages / 'tiny-0.safetensors'
    options = dict(short_side=64, flip_test=False, device='cpu')
    made = make_table1(blank_pages, 'val', weights, tmp_path / 'out', batch_size=8, **options)
    forms = [f'table1.{form}' for form in ('csv', 'json', 'md', 'tex')]
    detections = [f'detections-{name}.json' for name in ('baseline', 'bound', 'logocap')]
    assert sorted(f.name for f in (tmp_path / 'out').iterdir()) == [
        'bound.png',
        'bound.svg',
        'cache',
        *detections,
        *forms,
    ]
    saved = json.loads((tmp_path / 'out/table1.json').read_text())
    assert saved['rows'] == made['rows'] and saved['baseline'] == 'own initial poses'
    assert saved['spread'] == dict.fromkeys(made['rows'])
    assert saved['provenance']['data']['images'] == saved['provenance']['detected_now'] == 6
    base, bound, full = (json.loads((tmp_path / 'out' / name).read_text()) for name in detections)
    assert full and full != base
    assert [r['score'] for r in bound] == [r['score'] for r in base]
    again = make_table1(blank_pages, 'val', weights, tmp_path / 'out', **options)
    assert again['rows'] == made['rows'] and again['provenance']['detected_now'] == 0
    # to the last digit
    assert json.loads((tmp_path / 'out/detections-logocap.json').read_text()) == full
    make_table1(blank_pages, 'val', weights, tmp_path / 'other', batch_size=5, **options)
    other = json.loads((tmp_path / 'other/detections-logocap.json').read_text())
    # but for rounding
    assert np.allclose([r['score'] for r in other], [r['score'] for r in full], rtol=1e-3)


def test_seeds_baselines_and_ablations(blank_pages, tmp_path):
    import numpy as np
    from logocap.coco import CocoFolder
    from logocap.tables import (
        Detector,
        ablation_lines,
        detections_of,
        make_table1,
        measure_ablations,
    )

    zero, one, two = (blank_pages / f'tiny-{seed}.safetensors' for seed in (0, 1, 2))
    made = make_table1(
        blank_pages,
        'val',
        [zero, one],
        tmp_path,
        short_side=64,
        flip_test=False,
        batch_size=8,
        device='cpu',
        baseline=[one, two],
    )
    seeds = made['per_seed']['LOGO-CAP']
    assert list(seeds) == [str(zero), str(one)] and made['baseline'] == 'trained alone'
    assert made['rows']['LOGO-CAP']['AP'] == pytest.approx(
        np.mean([r['AP'] for r in seeds.values()]), abs=1e-9
    )
    detector = Detector(
        CocoFolder(blank_pages, 'val'), tmp_path / 'cache', 64, False, device='cpu', batch_size=8
    )
    table = measure_ablations(detector, [zero, one], dict(aligned=[two], batchnorm=[zero, one]))
    assert len(table['rows']) == 19 and len(ablation_lines(table)) == 20
    # here it is the same two networks
    assert table['rows']['plain batch norm, no attentive normalization']['change'] == dict(AP=0.0)
    assert table['rows']['full method']['per_seed'] == seeds
    part = next((tmp_path / 'cache').glob('tiny-0-none-*.npz'))
    part.write_bytes(b'torn')
    with pytest.raises(ValueError, match='not a file of detections'):
        detections_of(detector, zero)


def test_a_failed_run_leaves_no_table_behind(blank_pages, tmp_path):
    "Detections that were made before the faulty image stay, for the next run."
    from PIL import Image
    from logocap.tables import make_table1

    shutil.copytree(blank_pages, tmp_path / 'coco')
    weights = [tmp_path / 'coco/tiny-0.safetensors']
    (tmp_path / 'coco/val/5.png').unlink()
    with pytest.raises(FileNotFoundError, match='5.png'):
        make_table1(tmp_path / 'coco', 'val', weights, tmp_path / 'none', device='cpu')
    assert not (tmp_path / 'none').exists()
    Image.new('RGB', (90, 256)).save(tmp_path / 'coco/val/5.png')
    with pytest.raises(ValueError, match='320×256 px that the annotations name'):
        make_table1(
            tmp_path / 'coco', 'val', weights, tmp_path / 'none', short_side=64, device='cpu'
        )
    assert [path.name for path in (tmp_path / 'none').iterdir()] == ['cache']


def test_bound_in_pixels_of_the_network_input():
    """Half the input size: the window is twice as wide on the image. On made-up detections of
    made-up pages."""
    import numpy as np
    from logocap.coco import CocoFolder, average_precision, coco_results
    from logocap.tables import bound_rows, own_data
    from logocap.tables import bound_results

    rng, folder, base = np.random.default_rng(0), CocoFolder(own_data('people'), 'val'), []
    ids = folder.image_ids()[:24]
    pixels = {
        i: min(folder.coco.imgs[i]['width'], folder.coco.imgs[i]['height']) / 128 for i in ids
    }
    for i in ids:
        people = folder.people(i)[0].numpy().astype(float)
        people[..., :2] += rng.normal(0, 7, people[..., :2].shape)
        base += coco_results(i, people, rng.uniform(0.3, 1, len(people)))
    bound, perfect, by_side, moved = bound_rows(folder, base, ids, 256, sides=(1, 5, 11))
    half = bound_rows(folder, base, ids, 128, sides=(5,))[2]

    def score(results):
        return average_precision(folder.coco, results, ids)['AP']

    assert half[5] == pytest.approx(score(bound_results(folder.coco, base, 5, pixels)), abs=1e-6)
    assert half[5] > by_side[5]
    assert by_side[1] == pytest.approx(score(base), abs=1e-6)
    assert by_side[11] == bound['AP'] > score(base)
    assert bound['AP'] <= perfect['AP'] and len(moved) == len(base)


def test_one_scale_is_the_network_itself():
    import torch
    from logocap.model import LogoCap
    from logocap.tables import Scales

    torch.manual_seed(0)
    network, x = LogoCap(4, 8, 8, 4, (12, 10, 8), 3).eval(), torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        for ours, theirs in zip(Scales(network, (1,)).fields(x), network.fields(x)):
            assert (ours - theirs).abs().max() <= 1e-6 * theirs.abs().max()
