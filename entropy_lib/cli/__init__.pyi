# pyright: reportAttributeAccessIssue=error
from . import doctor as doctor
from . import profiles as profiles
from . import results as results
from . import runner as runner
from . import site as site
from .parameters import check_at_least as check_at_least
from .parameters import check_parameters as check_parameters
from .profiles import profile_parameters as profile_parameters
from .results import kept_tables as kept_tables
from .sweeps import IN_TABLES as IN_TABLES
from .sweeps import check_against_unscaled as check_against_unscaled
from .sweeps import check_calibration as check_calibration
from .sweeps import check_pairs as check_pairs
from .sweeps import comparison_of as comparison_of
from .sweeps import pipe_of as pipe_of
from .sweeps import plan_of as plan_of
from .sweeps import study_of as study_of
