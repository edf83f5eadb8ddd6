"Other methods on the same backbone; importing them makes them known by their names."
from . import centernet, dekr, associative_embedding
