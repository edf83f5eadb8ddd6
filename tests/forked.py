"""Commands in processes forked from one that has imported everything they need.

A start, and so a kill, takes a fraction of the time.
"""

import multiprocessing
import os
import sys
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


def main(name, arguments, output):
    "The command, its output in a file."
    with open(output, 'w') as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.argv = [name, *arguments]
    command(name)()


class Forked:
    "A command that runs, with as much of `subprocess.Popen` as is needed."

    def __init__(self, output, name, *arguments):
        self.output = Path(output)
        args = name, [str(a) for a in arguments], str(output)
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
