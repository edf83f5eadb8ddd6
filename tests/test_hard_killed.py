"""Runs that are killed, interrupted, or out of disk.

Nothing is lost, and what comes out in the end is what comes out of an undisturbed run.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
import pytest
import torch
from conftest import LONG
from forked import Forked
from test_commands import fails

PART = 'killed runs'
NET = ('--size', 64, '--batch-size', 1, '--seed', 3, '--device', 'cpu')
linux = pytest.mark.skipif(not sys.platform.startswith('linux'), reason='needs Linux')


def wait(what, process, seconds=300):
    end = time.time() + seconds
    while not what():
        assert process.poll() is None, process.text()
        assert time.time() < end, 'nothing happened in time'
        time.sleep(0.005)


def loads(folder):
    "Every file that a run has finished can be read; returns the step of its checkpoint."
    from safetensors.torch import load_file

    for file in folder.glob('*.safetensors'):
        load_file(file)
    for file in folder.glob('*.json'):
        json.loads(file.read_text())
    if not (folder / 'checkpoint.pt').is_file():
        return 0
    return torch.load(folder / 'checkpoint.pt', weights_only=True)['step']


def same_weights(folder, other):
    "The final weights of two runs, bit for bit."
    from safetensors.torch import load_file

    a, b = load_file(folder / 'model.safetensors'), load_file(other / 'model.safetensors')
    return set(a) == set(b) and all(torch.equal(a[n], b[n]) for n in a)


def test_training(tmp_path, run, tried):
    "SIGINT once, then SIGKILL at random moments, some of them while a checkpoint is being written."
    kills, steps = (30, 70) if LONG else (2, 12)
    rng = random.Random(time.time())
    options = (*NET, '--steps', steps, '--save-every', 1)

    def start(folder):
        return Forked(tmp_path / 'output', 'logocap-train', '--out', folder, *options)

    start(tmp_path / 'none').kill()  # the first start imports
    begun = time.time()
    whole = start(tmp_path / 'whole')
    wait((tmp_path / 'whole/checkpoint.pt').is_file, whole)
    ready = time.time() - begun
    assert whole.wait(900) == 0
    pace = (time.time() - begun - ready) / (steps - 1)
    folder, writing = tmp_path / 'killed', 0
    process = start(folder)
    wait((folder / 'checkpoint.pt').is_file, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 1
    step, text = loads(folder), process.text()
    assert f'logocap-train: stopped after step {step} of {steps}' in text, text
    assert 'Traceback' not in text, text
    tried(PART, 'training interrupted by SIGINT', 1, 'ended after a step, with its checkpoint')
    for n in range(kills):
        process = start(folder)
        seen, way = saved(folder), n % 3 if LONG else n + 1
        if way == 0:
            time.sleep(rng.uniform(0, 0.9 * ready))  # while it starts
        else:
            wait(lambda: saved(folder) != seen, process)
        if way == 1:
            time.sleep(rng.uniform(0, pace))  # somewhere in a step
        if way == 2:  # as soon as the next checkpoint is being written
            wait((folder / 'checkpoint.pt.part').exists, process)
            writing += 1
        assert process.poll() is None, 'the run was over before it could be killed'
        process.kill()
        process.wait()
        reached = loads(folder)
        assert reached >= step
        step = reached
    done = run('logocap-train', '--out', folder, *options)
    assert done.returncode == 0, done.stderr
    from safetensors.torch import load_file

    a, b = (load_file(f / 'model.safetensors') for f in (tmp_path / 'whole', folder))
    assert set(a) == set(b) and all(torch.equal(a[n], b[n]) for n in a)
    log = [json.loads(line) for line in (folder / 'log.jsonl').read_text().splitlines()]
    assert [line['step'] for line in log] == sorted({line['step'] for line in log})
    assert log[-1]['step'] == steps
    assert {'heatmaps', 'offsets', 'kam', 'adapted', 'total', 'matched', 'lr'} <= set(log[-1])
    outcome = 'every checkpoint loads; final weights bit for bit those of the undisturbed run'
    tried(PART, 'SIGKILLs of training at random moments', kills - writing, outcome)
    tried(PART, 'SIGKILLs of training while a checkpoint was written', writing, outcome)


def saved(folder):
    "When the checkpoint was last replaced; 0 where there is none."
    try:
        return (folder / 'checkpoint.pt').stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def table(folder):
    "Everything of a table but when and where it was made."
    made = json.loads((folder / 'table1.json').read_text())
    for name in ('seconds', 'finished', 'machine', 'detected_now'):
        made['provenance'].pop(name, None)
    detections = {p.name: p.read_bytes() for p in folder.glob('detections-*.json')}
    return made, detections, (folder / 'table1.csv').read_text()


@pytest.fixture(scope='module')
def people(tmp_path_factory):
    "A folder of drawn people."
    from logocap.people import write_split

    folder = tmp_path_factory.mktemp('people')
    write_split(folder, 'val', 6, 1)
    return folder


def written(folder):
    "Files of a folder and when they were written."
    found = set()
    for path in folder.rglob('*'):
        try:
            found.add((path, path.stat().st_mtime_ns))
        except FileNotFoundError:
            pass  # replaced meanwhile
    return found


def test_tables(tmp_path, people, tiny, run, tried):
    data = ('--data', people, '--split', 'val', '--weights', tiny)
    options = (*data, '--short-side', 64, '--no-flip-test', '--device', 'cpu')
    rng, kills, killed = random.Random(time.time()), 20 if LONG else 2, 0

    def start(folder):
        return Forked(tmp_path / 'output', 'logocap-tables', '--out', folder, *options)

    assert run('logocap-tables', '--out', tmp_path / 'whole', *options).returncode == 0
    begun = time.time()
    assert start(tmp_path / 'timed').wait() == 0
    takes = time.time() - begun
    while killed < kills:
        before = written(tmp_path / 'killed')
        process = start(tmp_path / 'killed')
        if killed % 2:
            time.sleep(rng.uniform(0, takes))
        else:  # while it writes
            wait(lambda: written(tmp_path / 'killed') != before, process)
            time.sleep(rng.uniform(0, 0.1 * takes))
        killed += process.poll() is None
        process.kill()
        process.wait()
        for file in (tmp_path / 'killed').glob('*.json'):
            json.loads(file.read_text())
    assert run('logocap-tables', '--out', tmp_path / 'killed', *options).returncode == 0
    assert table(tmp_path / 'killed') == table(tmp_path / 'whole')
    outcome = 'every JSON file whole; the finished table is the same'
    tried(PART, 'SIGKILLs of logocap-tables', kills, outcome)


def test_torn_detections(tmp_path, tried):
    """Detections that an earlier run has kept.

    Whole ones come back to the last digit, torn ones and ones with code are one line.
    """
    import numpy as np
    from logocap.coco import coco_results
    from logocap.tables import load_detections, save_detections
    from test_hard_checkpoints import Trap

    file, rng = tmp_path / 'kept.npz', np.random.default_rng(0)
    results = []
    for n in range(9):
        keypoints, scores = rng.random((2, 17, 3), np.float32), rng.random(2, np.float32)
        results += coco_results(n, keypoints, scores)
    save_detections(file, results)
    assert load_detections(file) == results
    whole = file.read_bytes()

    def refused():
        with pytest.raises(ValueError, match='kept.npz: not a file of detections'):
            load_detections(file)
        tried(PART, 'kept detections cut off, flipped, or with code in them', 1, 'one line')

    for end in np.linspace(0, len(whole) - 1, 200 if LONG else 12).astype(int):
        file.write_bytes(whole[:end])
        refused()
    for at in np.linspace(0, len(whole) - 1, 200 if LONG else 12).astype(int):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        try:
            same = load_detections(file) == results  # not every byte of a zip file matters
        except ValueError:
            refused()
        else:
            assert same
    trap = np.array([Trap(tmp_path / 'trapped')])
    np.savez(file, image_id=trap, score=np.zeros(1), keypoints=np.zeros((1, 51)))
    refused()
    assert not (tmp_path / 'trapped').exists()


@linux
def test_a_process_of_several_dies(tmp_path, tried):
    """One of two workers of torchrun is killed: both are started again and go on.

    Then the other is, and with no restart left the run ends with a message.
    """
    psutil = pytest.importorskip('psutil')
    from conftest import ROOT

    folder, steps = tmp_path / 'run', 24 if LONG else 12

    def torchrun(out, restarts):
        launch = [sys.executable, '-m', 'torch.distributed.run', '--standalone']
        launch += ['--nproc-per-node', 2, '--max-restarts', restarts, '--no-python']
        training = [Path(sys.executable).with_name('logocap-train'), '--out', out, *NET]
        training += ['--steps', steps, '--save-every', 1]
        return subprocess.Popen(
            [str(word) for word in launch + training],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=dict(os.environ, OMP_NUM_THREADS='1'),
        )

    process = torchrun(folder, 1)
    process.text = lambda: process.communicate()[1]
    for victim in (1, 0):
        seen, step = saved(folder), loads(folder) if victim == 0 else 0
        wait(lambda: saved(folder) != seen, process)
        children = psutil.Process(process.pid).children()
        workers = [p for p in children if 'logocap-train' in ' '.join(p.cmdline())]
        assert len(workers) == 2
        workers[victim].kill()
        killed = time.time()
        assert not psutil.wait_procs(workers, timeout=60)[1]
        assert loads(folder) > step, 'begun from the start'
    text = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    assert time.time() - killed < 60
    assert text.count('SIGKILL')
    assert 'another process of this run is gone' in text
    part = 'training faults'
    fault = 'one of two torchrun processes killed under --max-restarts'
    tried(part, fault, 1, 'both go on from the last checkpoint')
    fault = 'one of two torchrun processes killed, no restart left'
    tried(part, fault, 1, 'the run ends within a minute, with a message')
    if not LONG:
        return
    for out in (folder, tmp_path / 'whole'):
        assert torchrun(out, 0).wait(600) == 0
    assert same_weights(folder, tmp_path / 'whole')
    outcome = 'final weights bit for bit those of the undisturbed run'
    tried(part, 'the same run started once more', 1, outcome)


def test_writing_fails(tmp_path, tried):
    "Whatever fails while a file is being written, the old file stays and the line names it."
    from logocap.files import whole_file, write_json, write_text

    file = tmp_path / 'file'
    file.write_text('old')
    for fault in (
        OSError(28, 'No space left on device'),
        RuntimeError('PytorchStreamWriter failed writing file'),
        Exception('I/O error'),
    ):
        with pytest.raises(OSError, match='file: cannot be written'):
            with whole_file(file) as part:
                part.write_text('half')
                raise fault
        assert file.read_text() == 'old' and list(tmp_path.iterdir()) == [file]
    for fault in (
        FileNotFoundError('a.jpg: no such picture'),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ):
        with pytest.raises(type(fault)) as e:
            with whole_file(file):
                raise fault
        # of what was to be written, and says so
        assert e.value is fault
        assert file.read_text() == 'old'
    with pytest.raises(ValueError):
        write_json(file, float('nan'))
    write_text(file, 'new')
    assert file.read_text() == 'new'
    tried(PART, 'faults while a file is written', 7, 'the old file stays')


def limited():
    "No file may grow beyond 200 kB: what a full disk is to a program, without need of one."
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))


@linux
def test_a_file_cannot_grow(tmp_path, run, tried):
    options = ('--out', tmp_path / 'run', *NET, '--steps', 3, '--save-every', 1)
    done = run('logocap-train', *options, preexec_fn=limited)
    fails(done, 'checkpoint.pt: cannot be written', 'logocap-train')
    left = sorted(p.name for p in (tmp_path / 'run').iterdir())
    assert left in (['log.jsonl', 'recipe.json'], ['recipe.json'])
    tried(PART, 'checkpoints that cannot grow', 1, 'one line, no torn file')


@linux
def test_full_disk(tmp_path, tiny, tried):
    "On a tmpfs of 1 MB: said before the work where it can be, and the last good file stays."

    def on_tmpfs(size, script):
        disk = tmp_path / 'disk'
        script = f'mount -t tmpfs -o size={size} none {disk}; cd {disk}; {script}'
        command = ['unshare', '-rm', 'sh', '-ec', script]
        return subprocess.run(command, capture_output=True, text=True, timeout=600)

    (tmp_path / 'disk').mkdir()
    if on_tmpfs('1m', 'true').returncode:
        pytest.skip('no tmpfs can be mounted here')
    bin = Path(sys.executable).parent
    train = f'{bin}/logocap-train --out run {" ".join(map(str, NET))} --steps 2'
    done = on_tmpfs('1m', f'{train}; true')
    assert 'checkpoint.pt: needs' in done.stderr and 'Traceback' not in done.stderr, done.stderr
    (tmp_path / 'pictures').mkdir()
    from PIL import Image

    for n in range(40 if LONG else 12):
        Image.effect_noise((90, 70), 99).convert('RGB').save(tmp_path / f'pictures/{n}.png')
    predict = (
        f'{bin}/logocap-predict {tmp_path}/pictures --weights {tiny} --short-side 64 '
        '--no-flip-test --level none --device cpu --out poses.json'
    )
    done = on_tmpfs('150k', f'echo old > poses.json; {predict} || cat poses.json; ls')
    assert 'poses.json: cannot be written' in done.stderr, (done.stdout, done.stderr)
    assert done.stdout.split() == [
        'old',
        'poses.json',
    ], (done.stdout, done.stderr)
    done = on_tmpfs('64k', f'head -c 64000 /dev/zero > full; {predict} || ls')
    assert 'poses.json: needs' in done.stderr or 'cannot be written' in done.stderr, done.stderr
    assert done.stdout.split() == ['full']
    tried(PART, 'full disks', 3, 'said before the work, or the last good file stays')


def test_nowhere_to_write(tmp_path, inside, tried):
    """Said before the work starts.

    The superuser may write where the mode forbids it, and so looks at /proc.
    """
    nowhere = Path('/proc') if hasattr(os, 'geteuid') and os.geteuid() == 0 else tmp_path / 'shut'
    if nowhere == tmp_path / 'shut':
        nowhere.mkdir(mode=0o555)
    elif not nowhere.is_dir():
        pytest.skip('no folder that cannot be written to')
    from logocap.files import check_output

    for file in (nowhere / 'out.json', nowhere / 'deep/out.json'):
        with pytest.raises(PermissionError, match='cannot be written to'):
            check_output(file)
        tried(PART, 'folders that cannot be written to', 1, 'said before the work')
    done = inside('logocap-train', '--out', nowhere / 'run', *NET, '--steps', 1)
    fails(done, 'cannot be written to', 'logocap-train')
