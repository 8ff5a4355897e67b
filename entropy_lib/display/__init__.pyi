# pyright: reportAttributeAccessIssue=error
from . import figures as figures
from . import labels as labels
from . import numbers as numbers
from . import tables as tables
from . import verdicts as verdicts
from .explorer import explorer as explorer
from .labels import short_layer as short_layer
