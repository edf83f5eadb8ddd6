"Drawn people: an endless, seeded source of images of articulated people with COCO annotations."
from .skeleton import *
from .body import *
from .painting import *
from .scene import *
from .drawn import *
