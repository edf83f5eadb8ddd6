"`logocap-speed`: what is refused. No test depends on times."

import pytest
from logocap.lab.speed import speed_command

FAULTS = {
    "part 'all'": dict(parts=['all']),
    'widths wide': dict(widths=['wide']),
    '768×100': dict(height=100),
    '0 rounds': dict(rounds=0),
    "dtype 'int8'": dict(dtypes=['int8']),
    'abacus': dict(device='abacus'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_bad_input(fault, tmp_path):
    with pytest.raises(ValueError, match=fault):
        speed_command(out=str(tmp_path / 'speed'), **FAULTS[fault])
    assert not (tmp_path / 'speed/speed.json').exists()
