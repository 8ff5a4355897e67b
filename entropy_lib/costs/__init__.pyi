# pyright: reportAttributeAccessIssue=error
from . import operations as operations
from . import time_and_memory as time_and_memory
from .operations import Operations as Operations
from .operations import count_operations as count_operations
from .time_and_memory import Configuration as Configuration
from .time_and_memory import measure as measure
from .time_and_memory import measure_all as measure_all
