"`logocap-speed`: what is refused, and the paper's protocol. No test depends on times."

import json
import pytest
import torch
import logocap.lab.speed
from logocap.lab.compare import read_speed, table4
from logocap.lab.speed import measure_table4, speed_command
from logocap.tables import own_data

FAULTS = {
    "part 'all'": dict(parts=['all']),
    'widths wide': dict(widths=['wide']),
    '768×100': dict(height=100),
    '0 rounds': dict(rounds=0),
    "dtype 'int8'": dict(dtypes=['int8']),
    'abacus': dict(device='abacus'),
}


@pytest.fixture
def small_product(monkeypatch):
    "The unit of times, the matrix product of 4096 rows, is one of 256: nothing here depends on it."
    whole = logocap.lab.speed.matrix_product

    def small(device, dtype=torch.float32, n=256):
        return whole(device, dtype, min(n, 256))

    monkeypatch.setattr(logocap.lab.speed, 'matrix_product', small)


@pytest.mark.parametrize('fault', FAULTS)
def test_bad_input(fault, tmp_path):
    with pytest.raises(ValueError, match=fault):
        speed_command(out=str(tmp_path / 'speed'), **FAULTS[fault])
    assert not (tmp_path / 'speed/speed.json').exists()


def test_the_papers_protocol(tiny, tmp_path):
    "The mean over a split's images, of the network and from file to poses; Table 4 takes the file."
    people = str(own_data('people'))
    options = dict(data=people, split='val', weights=[str(tiny)], limit=2, device='cpu')
    speed_command(**options, out=str(tmp_path))
    made = json.loads((tmp_path / 'speed.json').read_text())
    rows = made['protocol']['LOGO-CAP-W4']
    assert [row['flip_test'] for row in rows] == [True, False]
    for row in rows:
        assert row['images'] == 2 and 0 < row['network_ms'] < row['whole_ms']
    speed = read_speed(tmp_path / 'speed.json')
    lines, note, _ = table4(speed)
    assert lines[-1][0] == 'LOGO-CAP-W4' and 'mean over 2 images of val' in note
    with pytest.raises(FileNotFoundError, match="no annotations of split 'train'"):
        speed_command(**dict(options, split='train'), out=str(tmp_path / 'other'))
    assert not (tmp_path / 'other').exists()


def test_what_table_4_needs(small_product, tmp_path):
    "The fast network with flip test alone; each row says how far to trust it."
    size = dict(height=64, width=128, rounds=2, dtypes=['float32'], device='cpu')
    speed_command(widths=['4', '8'], parts=['table4'], **size, out=str(tmp_path))
    made = json.loads((tmp_path / 'speed.json').read_text())
    assert list(made['rows']) == ['LOGO-CAP-W4', 'LOGO-CAP-W8']
    for row in made['rows'].values():
        assert row['spread'] >= 0 and row['work_ms'] > 0 and 'load' in row
    networks = {row['network'] for row in made['widths']['4']['single']}
    assert networks == {'matrix product', 'fast'}
    assert 'median of 2 single images' in made['provenance']['how']


def test_a_busy_machine_is_measured_twice(monkeypatch):
    quiet = dict(rows={'LOGO-CAP-W32': dict(ms=40.0, spread=0.01)})
    busy = dict(rows={'LOGO-CAP-W32': dict(ms=90.0, spread=0.4)})
    for records, kept, calls in (
        ([quiet], quiet, 1),
        ([busy, quiet], quiet, 2),
        ([busy, busy], busy, 2),
    ):
        left = list(records)
        monkeypatch.setattr(logocap.lab.speed, 'measure_all', lambda **options: left.pop(0))
        assert measure_table4() is kept and len(records) - len(left) == calls
