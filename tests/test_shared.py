"Several processes that share the images give what one gives, also after an interruption."

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import pytest
import logocap.predict
from logocap.coco import CocoFolder
from logocap.keypoints import PERSON
from logocap.predict import keep_results, lines_kept, merged, share_files, stream_poses
from logocap.tables import Detector, SharedWork, detection_parts, find_missing, own_data

BIN = Path(sys.executable).parent
RUNS = 'alone', 'shared'
ONE_THREAD = dict(os.environ, OMP_NUM_THREADS='1')


def together(name, *arguments):
    "A command in two processes of one thread each."
    torchrun = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    words = [sys.executable, *torchrun, '--no-python', BIN / name, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=600)


def assert_same_people(file, other):
    """Two files of results name the same people, in the same order.

    One process and two give an image to the network after different ones, in other places of
    memory, where a processor may sum in another order: float32 rounds a score of about 0.1 at
    1e-8 and a place of about 200 px at 2e-5, and a hundred such steps stay below these limits.
    """
    one, two = (json.loads(f.read_text()) for f in (file, other))
    assert [r['image_id'] for r in one] == [r['image_id'] for r in two]
    keypoints = [np.array([r["keypoints"] for r in rs]).reshape(-1, 3) for rs in (one, two)]
    np.testing.assert_allclose(*keypoints, rtol=0, atol=2e-3)
    np.testing.assert_allclose(
        [r['score'] for r in one], [r['score'] for r in two], rtol=0, atol=1e-6
    )


@pytest.fixture
def images(tmp_path):
    "Five drawn images, one of which is damaged, two of which have one name."
    folder = tmp_path / 'images'
    for n, name in enumerate(('a.jpg', 'b.jpg', 'more/a.jpg', 'more/d.jpg', 'e.jpg')):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(own_data(f'people/val/{n:012}.jpg'), folder / name)
    (folder / 'b.jpg').write_bytes(b'torn')
    return folder


def test_predict(run, images, tiny, tmp_path):
    options = ('-r', '--weights', tiny, '--short-side', 64, '--batch-size', 1, '--device', 'cpu')
    alone = run(
        'logocap-predict', images, *options, '--out', tmp_path / 'alone/poses.json', env=ONE_THREAD
    )
    assert alone.returncode == 1, alone.stderr
    out = tmp_path / 'shared/poses.json'
    words = ['logocap-predict', images, *options, '--out', out, '--draw', tmp_path / 'drawn']
    done = together(*words)
    assert '1 of 5 images left out' in done.stderr, done.stderr
    assert sorted(p.name for p in out.parent.iterdir()) == ['poses.faults.json', 'poses.json']
    assert_same_people(tmp_path / 'alone/poses.json', out)
    faults = 'poses.faults.json'
    assert (out.parent / faults).read_text() == (tmp_path / 'alone' / faults).read_text()
    drawn = sorted(p.name for p in (tmp_path / 'drawn').iterdir())
    assert drawn == ['1-a.png', '4-a.png', 'd.png', 'e.png']


def test_tables(run, tiny, tmp_path):
    "Both processes compute; the numbers are those of one."
    options = ('--table', 1, '--limit', 4, '--weights', tiny, '--short-side', 64, '--device', 'cpu')
    run('logocap-tables', *options, '--out', tmp_path / 'alone', env=ONE_THREAD)
    done = together('logocap-tables', *options, '--out', tmp_path / 'shared')
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('all of it in') == 1
    kept = [sorted(f.name for f in (tmp_path / n / 'cache').glob('*.npz')) for n in RUNS]
    assert kept[0] == kept[1] and len(kept[0]) == 4  # the same two parts at two levels
    made = [json.loads((tmp_path / n / 'table1.json').read_text()) for n in RUNS]
    assert made[0]['rows'] == made[1]['rows']
    for name in ('baseline', 'logocap'):
        file = f'detections-{name}.json'
        assert_same_people(tmp_path / 'alone' / file, tmp_path / 'shared' / file)


def test_nobody_waits_idly(tiny, tmp_path):
    "While another process computes the last part of a network, this one goes on with the next."
    val, occluded = (CocoFolder(own_data('people'), split) for split in ('val', 'occluded'))
    first = Detector(val, tmp_path, 64, device='cpu', limit=1)
    second = Detector(occluded, tmp_path, 64, device='cpu', limit=1, procs=first.procs)
    jobs = []
    for detector in (first, second):
        parts = detection_parts(detector, tiny, ('none',))
        jobs.append(find_missing(detector, tiny, parts))
    work = SharedWork(jobs)
    [task] = work.tasks[0]
    assert first.procs.take(task)  # as if by another process

    later = jobs[1].parts[0][1]['none']

    def other():
        while not later.is_file():
            time.sleep(0.01)
        first.procs.done(task)

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    work.complete(0)
    assert later.is_file()
    assert not jobs[0].parts[0][1]['none'].is_file()  # the other one's business
    work.complete(1)
    assert (first.computed, second.computed) == (1, 1)


def test_interrupted(tmp_path):
    "What an earlier run has kept is not computed again; a line that was torn off is."
    done = [[dict(score=0.5)], dict(fault='torn'), [dict(score=0.25)]]
    one, two = share_files(tmp_path / 'poses.json', 'facts', 2)
    keep_results(one, done[:1])
    with open(one, 'a') as torn:
        torn.write('[{"scor')
    assert (lines_kept(one), lines_kept(two)) == (1, 0)
    keep_results(one, done[2:])
    keep_results(two, done[1:2])
    assert list(merged([one, two])) == done
    assert share_files(tmp_path / 'poses.json', 'other facts', 2)[0] != one


@pytest.mark.parametrize('count', (20_000, pytest.param(100_000, marks=pytest.mark.slow)))
def test_memory_is_constant(count, monkeypatch):
    """Tens of thousands of images, as a generator gives them, leave nothing behind.

    The network is a stand-in, so that it takes seconds; the way of the images is the real one. To
    keep no more than a pointer for each, 8 bytes, would be more than what is allowed.
    """
    page = np.zeros((32, 64, 3), np.uint8)
    nobody = np.zeros((0, 17, 3), np.float32), np.zeros(0, np.float32)

    def detected(network, inputs, *args):
        return {'full': [nobody] * len(inputs)}

    monkeypatch.setattr(logocap.predict, 'detect', detected)
    model = SimpleNamespace(levels=('full',), short_side=32, least_score=0.0, skeleton=PERSON)
    images = (page.copy() for _ in range(count))
    held = []
    tracemalloc.start()
    for n, (image, poses) in enumerate(stream_poses(model, images)):
        assert len(poses) == 0
        if n in (count // 10, count - 1):
            held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert n == count - 1
    assert held[1] < held[0] + 100_000  # bytes
