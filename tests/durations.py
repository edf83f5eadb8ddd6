"""How long the commands take: `python tests/durations.py` writes data/durations.json.

`python tests/durations.py data predict` measures these two only and keeps the others. Processor
time is what the front page shows: it is nearly the same on a machine that does other things, too.
"""

import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
import torch
from logocap.files import write_json

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / 'data/durations.json'
PAGE = 'data/people/occluded/000000000001.jpg'
COMMANDS = {
    'help': 'logocap-predict --help',
    'image': f'logocap-predict {PAGE} --out OUT/poses.json',
    'predict': 'logocap-predict data/people/val --out OUT/poses.json',
    'data': 'logocap-data data/people',
    'tables': 'logocap-tables --out OUT/tables',
    'train': 'logocap-train --preset people --steps 20 --out OUT/run',
    'speed': 'logocap-speed --widths 32 --parts single --rounds 2 --out OUT/speed',
    'export': 'logocap-export --format torch_export --out OUT/logocap.pt2',
    'everything': 'make tables OUT=OUT/tables',
}


def measured(
    line: str,  # a command, OUT in it being a folder to write to
) -> dict:  # line, seconds, processor_seconds
    "Run a command once; raises CalledProcessError if it fails."
    words = shlex.split(line)
    program = Path(sys.executable).with_name(words[0])
    if program.is_file():  # installed beside this Python
        words[0] = str(program)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        words = [word.replace('OUT/', f'{out}/') for word in words]
        subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return dict(
        line=line.replace('OUT/', ''),
        seconds=round(seconds, 1),
        processor_seconds=round(used, 1),
        threads=int(os.environ.get('OMP_NUM_THREADS', torch.get_num_threads())),
    )


if __name__ == '__main__':
    record = json.loads(FILE.read_text()) if FILE.is_file() else dict(commands={})
    record['machine'] = dict(
        system=f'{platform.system()} {platform.machine()}',
        processor=torch.backends.cpu.get_cpu_capability(),
        python=platform.python_version(),
        torch=torch.__version__,
    )
    for name in sys.argv[1:] or COMMANDS:
        record['commands'][name] = measured(COMMANDS[name])
        print(name, record['commands'][name], flush=True)
        write_json(FILE, record)
