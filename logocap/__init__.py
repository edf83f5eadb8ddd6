"LOGO-CAP, the paper you can run."
__version__ = "0.1.0"

from .model import LogoCap
from . import checkpoints, fast, predict # they add from_pretrained, optimize and predict to it
from . import prior # makes the other methods known to checkpoints and to training
