# pyright: reportAttributeAccessIssue=error
from . import configuration as configuration
from . import growth as growth
from . import instruments as instruments
from . import measurement as measurement
from . import operations as operations
from .configuration import Configuration as Configuration
from .growth import crossover as crossover
from .growth import exponent as exponent
from .measurement import measure as measure
from .measurement import measure_all as measure_all
from .operations import Operations as Operations
from .operations import count_operations as count_operations
