"Runs that are killed, interrupted, or out of disk: nothing is lost, and what comes out in the end is what comes out of an undisturbed run."
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
from test_commands import fails

PART = 'killed runs'
NET = ('--size', 64, '--batch-size', 1, '--seed', 3, '--device', 'cpu')
linux = pytest.mark.skipif(not sys.platform.startswith('linux'), reason='needs Linux')


def start(command, *args, **options):
    return subprocess.Popen([Path(sys.executable).with_name(command), *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def steps_done(folder):
    log = folder/'log.jsonl'
    try: return max((json.loads(line)['step'] for line in log.read_text().splitlines() if line.endswith('}')), default=0)
    except FileNotFoundError: return 0


def wait(what, process, seconds=300):
    end = time.time() + seconds
    while not what():
        assert process.poll() is None and time.time() < end, process.communicate()[1] if process.poll() is not None else 'nothing happened in time'
        time.sleep(.005)


def loads(folder):
    "Every file that a run has finished can be read; returns the step of its checkpoint."
    from safetensors.torch import load_file
    for file in folder.glob('*.safetensors'): load_file(file)
    for file in folder.glob('*.json'): json.loads(file.read_text())
    return torch.load(folder/'checkpoint.pt', weights_only=True)['step'] if (folder/'checkpoint.pt').is_file() else 0


def test_training(tmp_path, run, tried):
    "SIGINT once, then SIGKILL at random moments, some of them while a checkpoint is being written."
    from safetensors.torch import load_file
    kills, steps, rng = (30, 160, random.Random(time.time())) if LONG else (2, 16, random.Random(time.time()))
    options = (*NET, '--steps', steps, '--save-every', 1)
    begun = time.time()
    whole = start('logocap-train', '--out', tmp_path/'whole', *options)
    wait((tmp_path/'whole/checkpoint.pt').is_file, whole)
    ready = time.time() - begun
    assert whole.wait(900) == 0
    pace = (time.time() - begun - ready) / (steps - 1)
    folder, writing = tmp_path/'killed', 0
    process = start('logocap-train', '--out', folder, *options)
    wait(lambda: loads_step(folder) >= 2, process)
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=120)[1]
    step = loads(folder)
    assert process.returncode == 1 and f'logocap-train: stopped after step {step} of {steps}' in text and 'Traceback' not in text, text
    tried(PART, 'training interrupted by SIGINT', 1, 'ended after a step, with its checkpoint')
    for n in range(kills):
        process = start('logocap-train', '--out', folder, *options)
        seen, way = loads_step(folder), n % 3 if LONG else n + 1
        if way == 0: time.sleep(rng.uniform(0, .9 * ready))  # while it starts
        else: wait(lambda: loads_step(folder) > seen, process)
        if way == 1: time.sleep(rng.uniform(0, pace))  # somewhere in a step
        if way == 2:  # as soon as the next checkpoint is being written
            wait((folder/'checkpoint.pt.part').exists, process)
            writing += 1
        assert process.poll() is None, 'the run was over before it could be killed'
        process.kill()
        process.wait()
        reached = loads(folder)
        assert reached >= step
        step = reached
    done = run('logocap-train', '--out', folder, *options)
    assert done.returncode == 0, done.stderr
    a, b = (load_file(f/'model.safetensors') for f in (tmp_path/'whole', folder))
    assert set(a) == set(b) and all(torch.equal(a[n], b[n]) for n in a)
    assert [json.loads(line)['step'] for line in (folder/'log.jsonl').read_text().splitlines()][-1] == steps
    tried(PART, 'SIGKILLs of training at random moments', kills - writing, 'every checkpoint loads; final weights bit for bit those of the undisturbed run')
    tried(PART, 'SIGKILLs of training while a checkpoint was written', writing, 'every checkpoint loads; final weights bit for bit those of the undisturbed run')


def loads_step(folder):
    "The step of the checkpoint; it is replaced whole, and so can be read at any time."
    try: return torch.load(folder/'checkpoint.pt', weights_only=True)['step']
    except FileNotFoundError: return 0


def table(folder):
    "Everything of a table but when and where it was made."
    made = json.loads((folder/'table1.json').read_text())
    for name in ('seconds', 'finished', 'machine'): made['provenance'].pop(name, None)
    return made, {p.name: p.read_bytes() for p in sorted(folder.glob('detections-*.json'))}, (folder/'table1.csv').read_text()


@pytest.fixture(scope='module')
def people(tmp_path_factory):
    "A folder of drawn people."
    from logocap.people import write_split
    folder = tmp_path_factory.mktemp('people')
    write_split(folder, 'val', 6, 1)
    return folder


def test_tables(tmp_path, people, tiny, run, tried):
    options = ('--data', people, '--split', 'val', '--weights', tiny, '--short-side', 64, '--no-flip-test', '--device', 'cpu')
    begun, rng, kills = time.time(), random.Random(time.time()), 20 if LONG else 1
    assert run('logocap-tables', '--out', tmp_path/'whole', *options).returncode == 0
    takes = time.time() - begun
    for n in range(kills):
        process = start('logocap-tables', '--out', tmp_path/'killed', *options)
        if n % 2: wait(lambda: (tmp_path/'killed').is_dir() and any((tmp_path/'killed').iterdir()) or process.poll() is not None, process)  # while it writes
        else: time.sleep(rng.uniform(0, takes))
        process.kill()
        process.wait()
        for file in (tmp_path/'killed').glob('*.json'): json.loads(file.read_text())
    assert run('logocap-tables', '--out', tmp_path/'killed', *options).returncode == 0
    assert table(tmp_path/'killed') == table(tmp_path/'whole')
    tried(PART, 'SIGKILLs of logocap-tables', kills, 'every JSON file whole; the finished table is the same')


@linux
def test_a_process_of_several_dies(tmp_path, tried):
    "One of two workers of torchrun is killed: both are started again and go on; without restarts, the run ends with a message."
    psutil = pytest.importorskip('psutil')
    from safetensors.torch import load_file
    from conftest import ROOT
    def torchrun(out, restarts, steps):
        return subprocess.Popen([sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', '--max-restarts', str(restarts), '-m', 'logocap.training', '--out', str(out),
                                 *map(str, NET), '--steps', str(steps), '--save-every', '1'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=dict(os.environ, OMP_NUM_THREADS='1'))
    def kill_one(process):
        wait(lambda: loads_step(tmp_path/'run') >= 2, process)
        workers = [p for p in psutil.Process(process.pid).children() if 'logocap.training' in ' '.join(p.cmdline())]
        assert len(workers) == 2
        workers[1].kill()
        return time.time()
    steps = 40 if LONG else 8
    process = torchrun(tmp_path/'run', 0, steps)
    killed = kill_one(process)
    text = process.communicate(timeout=300)[1]
    assert process.returncode != 0 and time.time() - killed < 60 and 'SIGKILL' in text and loads(tmp_path/'run') >= 2
    tried('training faults', 'one of two torchrun processes killed', 1, 'the run ends within a minute, with a message')
    if not LONG: return
    process = torchrun(tmp_path/'run', 3, steps)
    kill_one(process)
    process.communicate(timeout=600)
    assert process.returncode == 0
    process = torchrun(tmp_path/'whole', 0, steps)
    process.communicate(timeout=600)
    a, b = (load_file(tmp_path/f/'model.safetensors') for f in ('run', 'whole'))
    assert all(torch.equal(a[n], b[n]) for n in a)
    tried('training faults', 'the same under --max-restarts', 1, 'goes on from the last checkpoint; final weights bit for bit those of the undisturbed run')


def test_writing_fails(tmp_path, tried):
    "Whatever fails while a file is being written, the old file stays and the line names it."
    from logocap.coco import whole_file, write_json, write_text
    file = tmp_path/'file'
    file.write_text('old')
    for fault in (OSError(28, 'No space left on device'), RuntimeError('PytorchStreamWriter failed writing file'), Exception('I/O error')):
        with pytest.raises(OSError, match='file: cannot be written'):
            with whole_file(file) as part:
                part.write_text('half')
                raise fault
        assert file.read_text() == 'old' and list(tmp_path.iterdir()) == [file]
    with pytest.raises(ValueError): write_json(file, float('nan'))
    write_text(file, 'new')
    assert file.read_text() == 'new'
    tried(PART, 'faults while a file is written', 4, 'the old file stays')


def limited():
    "No file may grow beyond 200 kB: what a full disk is to a program, without need of one."
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))


@linux
def test_a_file_cannot_grow(tmp_path, run, tried):
    done = run('logocap-train', '--out', tmp_path/'run', *NET, '--steps', 3, '--save-every', 1, preexec_fn=limited)
    fails(done, 'checkpoint.pt: cannot be written', 'logocap-train')
    assert sorted(p.name for p in (tmp_path/'run').iterdir()) == ['log.jsonl', 'recipe.json'] or sorted(p.name for p in (tmp_path/'run').iterdir()) == ['recipe.json']
    tried(PART, 'checkpoints that cannot grow', 1, 'one line, no torn file')


@linux
def test_full_disk(tmp_path, tiny, tried):
    "On a tmpfs of 1 MB: said before the work where it can be, and the last good file stays."
    def on_tmpfs(size, script):
        return subprocess.run(['unshare', '-rm', 'sh', '-ec', f'mount -t tmpfs -o size={size} none {tmp_path}/disk; cd {tmp_path}/disk; {script}'], capture_output=True, text=True, timeout=600)
    (tmp_path/'disk').mkdir()
    if on_tmpfs('1m', 'true').returncode: pytest.skip('no tmpfs can be mounted here')
    bin = Path(sys.executable).parent
    done = on_tmpfs('1m', f'{bin}/logocap-train --out run {" ".join(map(str, NET))} --steps 2; true')
    assert 'checkpoint.pt: needs' in done.stderr and 'Traceback' not in done.stderr, done.stderr
    (tmp_path/'pictures').mkdir()
    from PIL import Image
    for n in range(40 if LONG else 12): Image.effect_noise((90, 70), 99).convert('RGB').save(tmp_path/f'pictures/{n}.png')
    predict = f'{bin}/logocap-predict {tmp_path}/pictures --weights {tiny} --short-side 64 --no-flip-test --level none --device cpu --out poses.json'
    done = on_tmpfs('150k', f'echo old > poses.json; {predict} || cat poses.json; ls')
    assert 'poses.json: cannot be written' in done.stderr and done.stdout.split() == ['old', 'poses.json'], (done.stdout, done.stderr)
    done = on_tmpfs('64k', f'head -c 64000 /dev/zero > full; {predict} || ls')
    assert 'poses.json: needs' in done.stderr or 'cannot be written' in done.stderr, done.stderr
    assert done.stdout.split() == ['full']
    tried(PART, 'full disks', 3, 'said before the work, or the last good file stays')


def test_nowhere_to_write(tmp_path, tiny, run, tried):
    "Said before the work starts. (The superuser may write where the mode forbids it, and so looks at /proc.)"
    nowhere = Path('/proc') if hasattr(os, 'geteuid') and os.geteuid() == 0 else tmp_path/'shut'
    if nowhere == tmp_path/'shut': nowhere.mkdir(mode=0o555)
    elif not nowhere.is_dir(): pytest.skip('no folder that cannot be written to')
    from logocap.coco import check_output
    for file in (nowhere/'out.json', nowhere/'deep/out.json'):
        with pytest.raises(PermissionError, match='cannot be written to'): check_output(file)
        tried(PART, 'folders that cannot be written to', 1, 'said before the work')
    fails(run('logocap-train', '--out', nowhere/'run', *NET, '--steps', 1), 'cannot be written to', 'logocap-train')
