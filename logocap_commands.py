"""Where the installed commands begin: outside the package, which takes seconds to import.

Help and options need `logocap/command.py` alone, made from nbs/15_command.ipynb; it is read as a
file, because importing it by name would import the package first.
"""

from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

_file = Path(find_spec('logocap').origin).with_name('command.py')
_spec = spec_from_file_location('command', _file)
command = module_from_spec(_spec)
_spec.loader.exec_module(command)

data = command.start('lab.report', 'data_command')
download = command.start('downloads', 'download_command')
export = command.start('lab.export', 'export_command')
predict = command.start('predict', 'predict_command')
speed = command.start('lab.speed', 'speed_command')
tables = command.start('lab.report', 'tables_command')
train = command.start('training', 'train_command')
