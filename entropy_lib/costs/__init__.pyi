# pyright: reportAttributeAccessIssue=error
from . import time_and_memory as time_and_memory
from .time_and_memory import Configuration as Configuration
from .time_and_memory import measure as measure
from .time_and_memory import measure_all as measure_all
