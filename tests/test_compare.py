"""The notebook nbs/lab/00_compare.ipynb on made-up pages.

What is refused, the rows of Tables 2 to 4, and the bootstrap against pycocotools.
"""

import json
import numpy as np
import pytest
from PIL import Image
from logocap.keypoints import KEYPOINTS, example_people, people_tensors
from logocap.coco import CocoFolder, average_precision, coco_index, coco_results
from logocap.lab.compare import (
    folder_faults,
    folder_notes,
    folder_splits,
    here_cells,
    image_matches,
    measure_speed,
    measure_table2,
    measure_table3,
    named_files,
    paired_bootstrap,
    read_results,
    read_speed,
    table4,
    weighted_ap,
    write_submission,
)
from logocap.tables import Detector


@pytest.fixture(scope='module')
def pages():
    "Forty pages of one to three people."
    rng, pages = np.random.default_rng(0), dict(example_people(), images=[], annotations=[])
    for i in range(40):
        pages['images'].append(dict(id=i, file_name=f'{i}.png', width=320, height=256))
        for a in example_people()['annotations'][: rng.integers(1, 4)]:
            pages['annotations'].append(dict(a, id=len(pages['annotations']) + 1, image_id=i))
    return pages


@pytest.fixture(scope='module')
def root(pages, tmp_path_factory):
    "The pages as a folder in COCO's layout, the first two of them blank images."
    root = tmp_path_factory.mktemp('pages')
    (root / 'annotations').mkdir()
    (root / 'val').mkdir()
    (root / 'annotations/person_keypoints_val.json').write_text(json.dumps(pages))
    for i in range(2):
        Image.new('RGB', (320, 256), 'white').save(root / 'val' / f'{i}.png')
    return root


@pytest.fixture(scope='module')
def folder(root):
    return CocoFolder(root, 'val')


def made_up(pages, pixels_off, seed):
    "Detections of all people at random distances from the truth, and on each page of nobody."
    rng, found = np.random.default_rng(seed), []
    for image in pages['images']:
        annotations = [a for a in pages['annotations'] if a['image_id'] == image['id']]
        people = people_tensors(annotations)[0].numpy()
        near = people[..., :2] + rng.normal(0, pixels_off, (len(people), 17, 2))
        poses = np.concatenate([near, rng.uniform(0, 300, (1, 17, 2))])
        poses = np.concatenate([poses, np.ones((len(poses), 17, 1))], -1)
        scores = [*rng.uniform(0.3, 1, len(people)), rng.uniform(0, 0.8)]
        found += coco_results(image['id'], poses, scores)
    return found


@pytest.mark.parametrize(
    'change, fault',
    (
        (dict(image_id=77), '[0].image_id is 77: not an image of person_keypoints_val.json'),
        (dict(image_id='0'), "[0].image_id is '0': Expected `int`"),
        (dict(score='1'), "[0].score is '1': Expected `float`"),
        (dict(score=None), '[0].score is None: Expected `float`'),
        (dict(keypoints=[1, 2]), '[0].keypoints is [1.0, 2.0]: expected 17 times x, y and score'),
        (dict(keypoints=['1'] * 51), "Expected `float`, got `str`"),
        (dict(category_id=0), '[0].category_id is 0, and 1, which means people, occurs nowhere'),
        (dict(category_id=[1]), '[0].category_id is [1]: Expected `int`'),
    ),
)
def test_results_that_are_refused(folder, tmp_path, change, fault):
    file = tmp_path / 'spoiled.json'
    sound = dict(image_id=0, score=1, keypoints=[0] * 51)
    file.write_text(json.dumps([sound]))
    assert len(read_results(file, folder)) == 1
    file.write_text(json.dumps([dict(sound, **change)]))
    with pytest.raises(ValueError) as refused:
        read_results(file, folder)
    assert fault in str(refused.value) and str(file) in str(refused.value)


@pytest.mark.parametrize(
    'text, fault',
    (
        ('{}', 'Expected `array`, got `object`'),
        ('[', 'not a JSON file'),
        ('[3]', '[0]: Expected `object`, got `int`'),
        ('[{"image_id": 0}]', 'missing required field'),
        ('[{"image_id": 0, "score": NaN}]', 'not a JSON file'),
    ),
)
def test_files_that_hold_no_results(folder, tmp_path, text, fault):
    (tmp_path / 'spoiled.json').write_text(text)
    with pytest.raises(ValueError) as refused:
        read_results(tmp_path / 'spoiled.json', folder)
    assert fault in str(refused.value)


def test_results_that_do_not_count(folder, tmp_path, capsys):
    file = tmp_path / 'results.json'
    person = dict(image_id=0, score=1, keypoints=[0] * 51, category_id=1)
    file.write_text(json.dumps([person, dict(person, category_id=2), person]))
    assert len(read_results(file, folder)) == 2
    assert '1 detections of other categories left out' in capsys.readouterr().err
    file.write_text('[]')
    assert read_results(file, folder) == []
    assert 'holds no detections' in capsys.readouterr().err


def test_named_files():
    from pathlib import Path

    assert named_files(['HGG=a.json', 'HGG@val=b=c.json']) == {
        '': dict(HGG=Path('a.json')),
        'val': dict(HGG=Path('b=c.json')),
    }


def test_bootstrap_equals_copies_of_the_images(pages, folder):
    "A draw, against a file in which the drawn images stand as often as they were drawn."
    ours, theirs, ids = made_up(pages, 3.5, 1), made_up(pages, 6, 2), folder.image_ids()
    matches = image_matches(folder.coco, ours, ids)
    our_ap = average_precision(folder.coco, ours, ids)['AP']
    their_ap = average_precision(folder.coco, theirs, ids)['AP']
    assert weighted_ap(matches, np.ones((1, 40)))[0] == pytest.approx(our_ap, abs=1e-9)
    draw = np.random.default_rng(3).multinomial(40, np.full(40, 1 / 40))
    many, found = dict(pages, images=[], annotations=[]), []
    for n, count in enumerate(draw):
        people = [a for a in pages['annotations'] if a['image_id'] == n]
        results = [r for r in ours if r['image_id'] == n]
        for c in range(count):
            copy = 100 * n + c
            many['images'].append(dict(pages['images'][n], id=copy))
            many['annotations'] += [dict(a, id=100 * a['id'] + c, image_id=copy) for a in people]
            found += [dict(r, image_id=copy) for r in results]
    copies_ap = average_precision(coco_index(many), found)['AP']
    assert weighted_ap(matches, draw[None])[0] == pytest.approx(copies_ap, abs=1e-9)
    sure = paired_bootstrap(folder.coco, ids, [ours], [theirs], 200)
    assert sure['difference'] == pytest.approx(our_ap - their_ap, abs=1e-9)
    assert 0 < sure['low'] < sure['difference'] < sure['high']
    same = paired_bootstrap(folder.coco, ids, [ours], [ours], 50)
    assert (same['low'], same['high']) == (0.0, 0.0)


def test_tables_2_and_3(pages, root, folder, tiny, tmp_path):
    theirs = made_up(pages, 6, 2)
    (tmp_path / 'theirs.json').write_text(json.dumps(theirs))
    detector = Detector(folder, tmp_path / 'cache', 64, False, device='cpu', limit=2)
    networks, results = dict(weights=[tiny], baseline=[tiny]), {'HGG': tmp_path / 'theirs.json'}
    lines, note, content = measure_table2(detector, networks, results)
    assert [line[0] for line in lines[-2:]] == ['LOGO-CAP-W4', 'Baseline-W4']
    assert lines[0][2:6] == ['AP, paper', 'AP, here', 'AP50, paper', 'AP50, here']
    first_two = [r for r in theirs if r['image_id'] < 2]
    assert content['here']['HGG']['mean'] == average_precision(folder.coco, first_two, [0, 1])
    assert 'not COCO val2017' in note and content['provenance']['results']['HGG']['sha256']
    lines, note, content = measure_table3({'occluded': detector}, networks, {'val': results})
    assert lines[0][-1] == 'occluded, here'
    assert lines[5][-1] != 'reported'
    assert lines[1][-1] == 'reported'
    assert here_cells(None) == ['reported', '', '', '', '']


def test_figure_2_is_kept(folder, tiny, tmp_path):
    """48 and 80 are no multiples of 32, and 64 is the nearest even one.

    The second time the times are read, unless they are asked for again.
    """
    detector = Detector(folder, tmp_path / 'cache', 64, False, device='cpu', limit=2)
    measured = measure_speed(detector, tiny, timed=2, rounds=2)
    assert [(r['short_side'], r['images']) for r in measured['points'][::2]] == [(32, 2), (64, 2)]
    assert measure_speed(detector, tiny, timed=2, rounds=2)['points'] == measured['points']
    again = measure_speed(detector, tiny, timed=2, rounds=2, again=True)['points']
    assert [r['ms'] for r in again] != [r['ms'] for r in measured['points']]
    assert [r['AP'] for r in again] == [r['AP'] for r in measured['points']]


def test_table_4(tmp_path):
    lines = table4(read_speed(None))[0]
    assert len(lines) == 8 and lines[1][3] == 'reported'
    rows = {'LOGO-CAP-W32': dict(ms=40), 'LOGO-CAP-W8': dict(ms=1000, AP=50.0)}
    (tmp_path / 'speed.json').write_text(json.dumps(dict(rows=rows)))
    head, *lines = table4(read_speed(tmp_path / 'speed.json'))[0]
    shown = {line[0]: dict(zip(head, line)) for line in lines[-3:]}
    assert shown['LOGO-CAP']['ms, here'] == 'reported'  # W48, the last of that name
    assert lines[-3][3] == '40.0' and lines[-3][6] == '25.00'
    assert (shown['LOGO-CAP-W8']['ms, here'], shown['LOGO-CAP-W8']['AP, here']) == ('1,000', '50.0')


def test_times_of_a_busy_machine(tmp_path):
    """A wide network with fewer bits that takes less time than a narrow one with more, and rounds
    that lie apart: both are said in the table and below it."""
    rows = {
        'LOGO-CAP-W32': dict(ms=3813, spread=0.05, work_ms=1590),
        'LOGO-CAP-W48': dict(ms=4245, spread=0.16, work_ms=5400),
        'LOGO-CAP-W48 (bfloat16)': dict(ms=2050, spread=0.15, work_ms=2610),
    }
    speed = dict(rows=rows, provenance={})
    lines, note, content = table4(speed)
    marked = [line[0] for line in lines if '‡' in line[3]]
    assert marked == ['LOGO-CAP', 'LOGO-CAP'] and set(content['doubts']) == set(list(rows)[:2])
    assert '1.6 times the work' in note and '16 % apart' in note and 'AGAIN=1' in note
    rows['LOGO-CAP-W32']['ms'] = 1514
    rows['LOGO-CAP-W48']['spread'] = 0.02
    lines, note, content = table4(speed)
    assert not content['doubts'] and '‡' not in str(lines) + note


def test_submission(pages, folder, tmp_path):
    ours, ids = made_up(pages, 3.5, 1), folder.image_ids()
    first = write_submission(ours, ids, tmp_path / 'a', 'made-up').read_bytes()
    assert write_submission(ours, ids, tmp_path / 'b', 'made-up').read_bytes() == first
    with pytest.raises(ValueError, match='not in the split'):
        write_submission(ours, ids[1:], tmp_path)
    with pytest.raises(ValueError, match='letters, digits and hyphens'):
        write_submission(ours, ids, tmp_path, 'a/b')


def test_folder_faults(pages, tmp_path, inside):
    for name in ('annotations', 'val', 'images'):
        (tmp_path / name).mkdir()
    file = tmp_path / 'annotations/person_keypoints_val.json'
    people = [dict(a) for a in pages['annotations'] if a['image_id'] < 3]
    few = dict(pages, images=pages['images'][:3], annotations=people)
    file.write_text(json.dumps(few))
    for i in few['images']:
        Image.new('RGB', (320, 256), 'white').save(tmp_path / 'val' / i['file_name'])
    sound = CocoFolder(tmp_path, 'val')
    assert folder_splits(tmp_path) == ['val'] and folder_faults(sound) == folder_notes(sound) == []
    (tmp_path / 'val/0.png').unlink()
    (tmp_path / 'val/1.png').write_bytes(b'torn')
    Image.new('RGB', (90, 90)).save(tmp_path / 'val/2.png')
    few['annotations'][0].update(num_keypoints=3, keypoints=[999, 9, 2] * 17)
    file.write_text(json.dumps(few))
    lines = folder_faults(CocoFolder(tmp_path, 'val'))
    assert len(lines) == 5
    assert any('1 images that cannot be read, the first: 1.png' in line for line in lines)
    # without opening them only the missing one is noticed
    assert len(folder_faults(CocoFolder(tmp_path, 'val'), pictures=False)) == 3

    mirrored = [dict(few['categories'][0], keypoints=list(KEYPOINTS[::-1]))]
    file.write_text(json.dumps(dict(few, categories=mirrored)))
    done = inside('logocap-data', tmp_path)  # what cannot be read cannot be looked at further
    assert done.returncode == 1 and "not in COCO's order" in done.stdout
    assert done.stdout.count('\n') == 1
    done = inside('logocap-data', tmp_path / 'nowhere')
    assert done.returncode == 1 and 'no annotations in COCO' in done.stderr


def test_folders_worth_a_note(pages, tmp_path, inside):
    "A part of OCHuman, with a turned image: sound, and said; the same in a layout of one's own."
    (tmp_path / 'images').mkdir()
    people = [dict(a) for a in pages['annotations'] if a['image_id'] < 2]
    few = dict(pages, images=pages['images'][:2], annotations=people)
    file = tmp_path / 'ochuman_coco_format_val_range_0.00_1.00.json'
    file.write_text(json.dumps(few))
    turned = Image.Exif()
    turned[0x0112] = 3
    Image.new('RGB', (320, 256)).save(tmp_path / 'images/0.png', exif=turned)
    Image.new('RGB', (320, 256)).save(tmp_path / 'images/1.png')
    part, exif = folder_notes(CocoFolder(tmp_path, 'val'))
    assert 'a part of the data set' in part and 'lists 2 of 2,500 images' in part
    assert exif.startswith('1 images carry an EXIF orientation, the first: 0.png')

    done = inside('logocap-data', tmp_path)
    assert done.returncode == 0 and 'val: sound, 2 images' in done.stdout
    file.rename(tmp_path / 'labels.json')
    done = inside('logocap-data', tmp_path)
    assert done.returncode == 1 and '--annotations FILE --images DIR' in done.stderr
    named = ('--annotations', tmp_path / 'labels.json', '--images', tmp_path / 'images')
    done = inside('logocap-data', *named)
    assert done.returncode == 0 and 'labels: sound, 2 images' in done.stdout
    done = inside('logocap-data', *named[:2])
    assert done.returncode == 1 and 'named together' in done.stdout
    assert inside('logocap-data').returncode == 1
