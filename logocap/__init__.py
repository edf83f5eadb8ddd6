"LOGO-CAP, the paper you can run."
__version__ = "0.1.0"

from .model import LogoCap
from . import checkpoints, fast, predict # they add from_pretrained, optimize and predict to it

try:
    from . import prior # makes the other methods known to checkpoints and to training
except ModuleNotFoundError as e: # torch, NumPy and Pillow alone are enough for a model
    if e.name.split('.')[0] != 'fastcore': raise
