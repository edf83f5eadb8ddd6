"""What the readable path computes at each stage, for tests/test_frozen.py.

`python tests/frozen.py FILE` writes it.
"""

import sys
from pathlib import Path
import numpy as np
import torch
from logocap.images import network_input
from logocap.model import LEVELS, LogoCap

PEOPLE = Path(__file__).resolve().parent.parent / 'data/people/val'
IMAGES = (3, 57, 200)


def stages():
    "Name → array of every stage of three drawn images at three levels, with and without flip test."
    model = LogoCap.from_pretrained('people-11')
    found = {}
    for image in IMAGES:
        x, _ = network_input(PEOPLE / f'{image:012d}.jpg', 256)
        for flip_test in (False, True):
            with torch.inference_mode():
                stages = model(x[None], flip_test)
            for level in LEVELS:
                names = ('heatmaps', 'offsets', 'embedding', 'centers', 'initial')
                if level != 'none':
                    names += ('mesh', 'kam')
                out = {name: stages[name] for name in names} | model.at_level(stages, level)
                for name, value in out.items():
                    found[f'{image} {flip_test} {level} {name}'] = value.numpy()
    return found


def digest(found):
    "The stages in few numbers: small ones whole, of large ones 64 values spread over them."
    short = {}
    for name, value in found.items():
        flat = np.asarray(value).reshape(-1)
        short[name] = value
        if flat.size > 1600:
            short[name] = flat[np.linspace(0, flat.size - 1, 64).astype(int)]
    return short


if __name__ == '__main__':
    np.savez_compressed(sys.argv[1], **digest(stages()))
