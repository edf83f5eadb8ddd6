"The readable path computes what it computed before its rooms were rebuilt."

import numpy as np
from conftest import ROOT
from frozen import digest, stages


def test_every_stage():
    """Stages of three images at three levels, with and without flip test, as they were recorded.

    Bit by bit on the processor that recorded them. On others rounding differs: by 1e-5 of a stage's
    largest value, and by whole cells where two cells of an adapted or attraction map are equal
    within rounding.
    """
    now = digest(stages())
    with np.load(ROOT / 'tests/frozen.npz') as recorded:
        assert set(recorded.files) == set(now)
        for name, value in now.items():
            before = recorded[name]
            apart = np.abs(value.astype(float) - before) > 1e-5 * np.abs(before).max()
            allowed = 0.02 if name.endswith('poses') else 0
            assert apart.mean() <= allowed, name
