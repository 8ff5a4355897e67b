from . import figures as figures
from . import labels as labels
from . import tables as tables
from .labels import short_layer as short_layer
