"Where the tests find the project, its installed commands, and the reference data, which not every machine has."
import subprocess
import sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent/'shared'


def _folder(name):
    if not (SHARED/name).is_dir(): pytest.skip(f'the reference folder shared/{name} is not beside the checkout')
    return SHARED/name


@pytest.fixture(scope='session')
def parity():
    "Checkpoint, pictures and values recorded from the released implementation."
    return _folder('parity')


@pytest.fixture(scope='session')
def coco_mini():
    "Photographs with keypoint annotations in COCO's layout."
    return _folder('coco-mini')


@pytest.fixture(scope='session')
def run():
    "Run an installed command; returns the completed process with its output as text."
    def run(command, *args, cwd=None):
        return subprocess.run([Path(sys.executable).with_name(command), *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=600)
    return run


@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    "A checkpoint of a very narrow network with random weights."
    import torch
    from logocap.model import LogoCap
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp('weights')/'tiny.safetensors'
    LogoCap(4, 8, 8, 4, (12, 10, 8), 3).save_pretrained(file)
    return file
