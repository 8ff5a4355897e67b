# pyright: reportAttributeAccessIssue=error
from . import doctor as doctor
from . import profiles as profiles
from . import results as results
from . import runner as runner
from . import site as site
from .metric_tables import IN_TABLES as IN_TABLES
from .metric_tables import comparison_of as comparison_of
from .metric_tables import pipe_of as pipe_of
from .metric_tables import plan_of as plan_of
from .parameters import check_parameters as check_parameters
from .profiles import profile_parameters as profile_parameters
from .results import kept_tables as kept_tables
from .results import write_tables as write_tables
from .user_study import study_of as study_of
