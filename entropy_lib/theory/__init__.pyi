# pyright: reportAttributeAccessIssue=error
from . import exact as exact
from . import laws as laws
from . import simulation as simulation
from .exact import exact_entropy as exact_entropy
from .laws import BeyondLawWarning as BeyondLawWarning
from .laws import cumulant_entropy as cumulant_entropy
from .laws import equal_entropy_factor as equal_entropy_factor
from .laws import freezing_std as freezing_std
from .laws import gaussian_entropy as gaussian_entropy
from .laws import paper_slope as paper_slope
from .laws import share_of_change_removed as share_of_change_removed
