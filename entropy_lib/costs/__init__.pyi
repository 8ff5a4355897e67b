# pyright: reportAttributeAccessIssue=error
from . import measurement as measurement
from . import operations as operations
from .measurement import Configuration as Configuration
from .measurement import measure as measure
from .measurement import measure_all as measure_all
from .operations import Operations as Operations
from .operations import count_operations as count_operations
