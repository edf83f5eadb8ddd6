"Long use: thousands of pictures through one model, and many threads on one."

import ctypes
import gc
import sys
import threading
import numpy as np
import pytest
from conftest import LONG
from logocap.model import LEVELS, LogoCap

PART = 'long use'


@pytest.fixture(scope='module')
def model(tiny):
    network = LogoCap.from_pretrained(tiny)
    network.candidates = 4  # of the thirty: the whole method takes a seventh of the time
    return network


def pictures():
    "Noise of changing sizes, without end, the same every time."
    rng = np.random.default_rng(0)
    while True:
        width, height = rng.integers(20, 200, 2)
        yield rng.integers(0, 255, (height, width, 3), np.uint8)


def same(a, b):
    return np.array_equal(a.keypoints, b.keypoints) and np.array_equal(a.scores, b.scores)


def resident():
    """Bytes of this process in memory, after what it has freed has gone back to the system, where
    the C library can do that."""
    gc.collect()
    getattr(ctypes.CDLL(None), 'malloc_trim', lambda rest: None)(0)
    return int(open('/proc/self/statm').read().split()[1]) * 4096


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='reads /proc')
def test_memory_and_sameness(model, tried):
    count, warm = (5000, 200) if LONG else (12, 3)
    source = pictures()
    known = next(source)

    def predict(picture, level='full'):
        return model.predict(picture, short_side=32, flip_test=False, level=level)

    first, people, every = predict(known), 0, 20 if LONG else 3
    for n in range(0, count, every):  # in lists of twenty
        if n == warm:
            before = resident()
        for found in predict(
            [next(source) for _ in range(every)],
            'full' if n // every % 5 == 0 else LEVELS[n // every % 2],
        ):
            people += len(found)
            assert np.isfinite(found.keypoints).all()
    growth = resident() / before - 1
    assert len(first) and same(predict(known), first)
    if LONG:
        assert growth < 0.05, f'{100 * growth:.1f} %'
    assert people > count
    tried(
        PART,
        'predictions on pictures of changing sizes, at all levels, a fifth of them at full',
        count,
        f'memory grew by {100 * growth:.1f} % after the first {warm}; '
        'the first picture gives the same poses in the end',
    )


def test_threads(model, tried):
    source = pictures()
    some = [next(source) for _ in range(8 if LONG else 1)]

    def predict(picture):
        return model.predict(picture, short_side=32, flip_test=True)

    alone = [predict(p) for p in some]
    rounds, found, faults = 4 if LONG else 1, {}, []

    def work(thread):
        try:
            found[thread] = [predict(p) for _ in range(rounds) for p in some]
        except Exception as e:
            faults.append(e)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not faults and len(found) == 8 and all(len(a) for a in alone)
    for results in found.values():
        assert all(same(a, b) for a, b in zip(results, alone * rounds))
    tried(
        PART,
        'predictions by eight threads on one model',
        8 * rounds * len(some),
        'the same as by one',
    )
