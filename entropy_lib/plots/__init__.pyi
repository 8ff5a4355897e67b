# pyright: reportAttributeAccessIssue=error
from . import figures as figures
from . import labels as labels
from . import numbers as numbers
from . import sentences as sentences
from . import tables as tables
from .explorer import explorer as explorer
from .labels import short_layer as short_layer
