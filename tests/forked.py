"""Commands in processes forked from one that has imported everything they need.

A start, and so a kill, takes a fraction of the time. Several tests start the installed programs
themselves, which import on their own.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path

CONTEXT = multiprocessing.get_context('forkserver')
IMPORTED = ['torch._dynamo', 'matplotlib.figure', 'pycocotools.cocoeval']
CONTEXT.set_forkserver_preload([*IMPORTED, 'logocap.training', 'logocap.lab.report'])
SETTINGS = ConfigParser(delimiters=['='])
SETTINGS.read(Path(__file__).resolve().parent.parent / 'settings.ini', encoding='utf-8')
COMMANDS = dict(line.split('=') for line in SETTINGS['DEFAULT']['console_scripts'].split())


def command(name):
    "The function behind a command."
    module, function = COMMANDS[name].split(':')
    return getattr(import_module(module), function)


def main(name, arguments, place, output, errors=None):
    "The command, at work in a folder, its output in a file, its errors there or in another."
    with open(output, 'w') as said:
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
    if errors:
        with open(errors, 'w') as told:
            os.dup2(told.fileno(), 2)
    os.chdir(place)
    sys.argv = [name, *arguments]
    sys.exit(command(name)())


class Forked:
    "A command that runs, with as much of `subprocess.Popen` as is needed."

    def __init__(self, output, name, *arguments, errors=None):
        self.output = Path(output)
        args = name, [str(a) for a in arguments], os.getcwd(), str(output), errors
        self.process = CONTEXT.Process(target=main, args=args)
        self.process.start()

    def poll(self):
        return self.process.exitcode

    def kill(self):
        self.process.kill()

    def send_signal(self, number):
        os.kill(self.process.pid, number)

    def text(self):
        return self.output.read_text()

    def wait(self, seconds=600):
        self.process.join(seconds)
        assert self.poll() is not None, f'not over after {seconds} s'
        return self.poll()


def run_forked(name, *arguments):
    "A command from start to end, as `subprocess.run` gives it back."
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder, 'output'), Path(folder, 'errors')
        code = Forked(output, name, *arguments, errors=str(errors)).wait()
        words = [name, *map(str, arguments)]
        return subprocess.CompletedProcess(words, code, output.read_text(), errors.read_text())
