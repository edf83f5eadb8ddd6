"A clip, from frames to frames."

import json
import sys
import numpy as np
import pytest
from PIL import Image
from conftest import ROOT

av = pytest.importorskip('av', reason="no PyAV: pip install av")
from logocap.video import clip_facts, clip_writer, read_frames
import logocap.predict
import logocap.video


@pytest.fixture
def clip(tmp_path):
    "A drawn image that moves to the right, six frames."
    image = np.asarray(Image.open(ROOT / 'data/people/val/000000000002.jpg').convert('RGB'))
    file = tmp_path / 'clip.mp4'
    with clip_writer(file, rate=12) as write:
        for n in range(6):
            write(np.roll(image, 4 * n, axis=1))
    return file


def test_command(clip, tmp_path, inside, monkeypatch):
    monkeypatch.setattr(logocap.predict, '_told', set())
    out = tmp_path / 'poses.json'
    options = ('--no-flip-test', '--device', 'cpu', '--out', out)
    done = inside('logocap-predict', clip, '--draw', tmp_path / 'drawn.mp4', *options)
    assert done.returncode == 0, done.stderr
    assert 'these weights know drawn people only' in done.stderr
    results = json.loads(out.read_text())
    assert {r['image_id'] for r in results} == set(range(6))
    assert {r['file_name'] for r in results} == {'clip.mp4'}
    best = [
        max((r for r in results if r['image_id'] == n), key=lambda r: r['score']) for n in (0, 5)
    ]
    moved = best[1]['bbox'][0] - best[0]['bbox'][0]
    assert abs(moved - 20) < 6  # somebody moves as the image does

    assert clip_facts(tmp_path / 'drawn.mp4') == (12, 6)
    before, after = (list(read_frames(f)) for f in (clip, tmp_path / 'drawn.mp4'))
    assert all(a.shape == b.shape for a, b in zip(before, after))
    assert np.abs(before[0].astype(int) - after[0]).max() > 100  # there is something on it

    for words, fault in (
        ((clip, clip), 'a clip goes alone'),
        ((tmp_path / 'none.mp4',), 'none.mp4: no such image'),
        ((clip, '--draw', tmp_path / 'a.gif'), 'clips are written as .mp4'),
    ):
        done = inside('logocap-predict', *words, *options)
        assert done.returncode == 1 and fault in done.stderr
    monkeypatch.setitem(sys.modules, 'av', None)
    done = inside('logocap-predict', clip, *options)
    assert done.returncode == 1 and 'clips need PyAV: ' in done.stderr
    assert done.stderr.endswith('python -m pip install av\n')


def test_torn_clips(clip, tmp_path, inside):
    for size in (0, 100, clip.stat().st_size // 2):
        torn = tmp_path / 'torn.mp4'
        torn.write_bytes(clip.read_bytes()[:size])
        done = inside('logocap-predict', torn, '--no-flip-test', '--out', tmp_path / 'poses.json')
        assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(
            f'logocap-predict: {torn}: not a readable clip'
        )
        assert not (tmp_path / 'poses.json').exists()


def test_an_hour_takes_no_more_memory(monkeypatch):
    "Frames are taken as they are needed: no more wait than some batches of them."
    from logocap import LogoCap
    from logocap.predict import stream_poses

    taken = 0

    def frames():
        nonlocal taken
        for n in range(60):
            taken += 1
            yield np.full((64, 64, 3), n, np.uint8)

    model = LogoCap(4, 8, 8, 4, (12, 10, 8), 3).eval()
    ahead = []
    found = stream_poses(model, frames(), False, 64, 'none', batch_size=2)
    for done, (frame, poses) in enumerate(found, 1):
        assert frame[0, 0, 0] == done - 1
        ahead.append(taken - done)
    assert taken == 60 and max(ahead) <= 8
