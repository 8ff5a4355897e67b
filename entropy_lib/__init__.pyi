# pyright: reportAttributeAccessIssue=error
from . import attention as attention
from . import baselines as baselines
from . import display as display
from . import errors as errors
from . import experiments as experiments
from . import files as files
from . import metrics as metrics
from . import models as models
from . import probes as probes
from . import running as running
from . import scaling as scaling
from . import sizes as sizes
from . import statistics as statistics
from . import sweep as sweep
from . import theory as theory
from .attention import attention_entropy as attention_entropy
from .attention import logit_moments as logit_moments
from .display import figures as figures
from .display import tables as tables
from .display import verdicts as verdicts
from .experiments import entropy_by_size as entropy_by_size
from .experiments import generate as generate
from .experiments import native_size as native_size
from .models.catalogue import catalogue as catalogue
from .models.catalogue import load as load
from .models.layers import training_tokens as training_tokens
from .probes import EntropyProbe as EntropyProbe
from .probes import LogitProbe as LogitProbe
from .scaling import apply_scale as apply_scale
from .scaling import remove_scale as remove_scale
from .scaling import rule as rule
from .scaling import scale_report as scale_report
from .scaling import scaled as scaled
from .sizes import parse_size as parse_size
from .sizes import size_name as size_name

__version__: str
