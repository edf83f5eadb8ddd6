"""What depends on rounding, computed as other processors compute it: `make test-processors`.

PyTorch's own loops are limited by ATEN_CPU_CAPABILITY, oneDNN's convolutions and products by
ONEDNN_MAX_CPU_ISA, each with one and with two threads; `native` is what the processor has, bfloat16
units included. Words select the combinations whose names contain all of them.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# of ATen, of oneDNN
SETS = {'default': 'SSE41', 'avx2': 'AVX2', 'avx512': 'AVX512_CORE', 'native': None}
TESTS = (
    'test_frozen',
    'test_parity',
    'test_speed',
    'test_fast',
    'test_export',
    'test_hard_numbers',
    'test_losses',
    'test_center_offset',
    'test_kem',
    'test_cmp',
    'test_adaptation',
    'test_hrnet',
    'test_centernet',
    'test_dekr',
    'test_associative_embedding',
    'test_upper_bound',
    'test_prior',
    'test_skeletons',
    'test_shared',
)
SINGLE_TESTS = ('test_tables.py::test_what_levels_share_changes_nothing',)
ROOMS = '''hrnet center_offset kem upper_bound cmp adaptation losses model checkpoints fast
    predict training tables skeletons centernet dekr associative_embedding equal_terms compare
    report export explore weights'''

NAMES = r'^(?:FAILED|ERROR) .*|^\S+Error.*|^.*\.ipynb.*'  # in what a red part says


def environment(
    name: str,  # of SETS
    threads: int,  # of both libraries
) -> dict:  # of the tests' processes
    "This process's environment, limited to an instruction set."
    limits = dict(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads), MPLBACKEND='agg')
    if SETS[name]:
        limits.update(ATEN_CPU_CAPABILITY=name, ONEDNN_MAX_CPU_ISA=SETS[name])
    ours = 'ATEN_CPU_CAPABILITY', 'ONEDNN_MAX_CPU_ISA'
    inherited = {n: v for n, v in os.environ.items() if n not in ours}
    return inherited | limits


def run(name, threads):
    "Whether all is green under a combination; prints its line, and of what is red the names."
    start, said = time.time(), {}
    programs = Path(sys.executable).parent
    files = [f'tests/{t}.py' for t in TESTS] + [f'tests/{t}' for t in SINGLE_TESTS]
    rooms = rf'^\d\d_({"|".join(ROOMS.split())})\.'
    commands = dict(
        pytest=[sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', *files],
        notebooks=[programs / 'nbdev_test', '--n_workers', '1', '--file_re', rooms],
    )
    red = []
    for part, command in commands.items():
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment(name, threads),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said[part] = 'red' if done.returncode else 'green'
        if done.returncode:
            red += re.findall(NAMES, done.stdout, re.M)
    parts = ', '.join(f'{part} {result}' for part, result in said.items())
    print(f'{label(name, threads)}: {parts}, {time.time() - start:.0f} s', flush=True)
    for line in red:
        print(f'    {line}', flush=True)
    return set(said.values()) == {'green'}


def label(name, threads):
    "A combination's name."
    limited = f'{name}/{SETS[name]}' if SETS[name] else name
    return f'{limited}, {threads} thread{"s" * (threads > 1)}'


def main(words):
    "Runs all combinations that this processor has; the exit status."
    import torch

    levels = ('default', 'avx2', 'avx512')
    mine = torch.backends.cpu.get_cpu_capability().lower()
    if mine not in levels:
        raise SystemExit(f'{mine} is none of {", ".join(levels)}')
    available = [*levels[: levels.index(mine) + 1], 'native']
    chosen = [(n, t) for n in available for t in (1, 2) if all(w in label(n, t) for w in words)]
    if not chosen:
        raise SystemExit(f'no combination has {" ".join(words)} in its name')
    results = [run(*combination) for combination in chosen]
    return int(not all(results))


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
