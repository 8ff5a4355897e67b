# pyright: reportAttributeAccessIssue=error
from . import cli as cli
from . import entropy as entropy
from . import errors as errors
from . import files as files
from . import metrics as metrics
from . import models as models
from . import plots as plots
from . import probes as probes
from . import sampling as sampling
from . import scaling as scaling
from . import scenes as scenes
from . import sizes as sizes
from . import statistics as statistics
from . import study as study
from . import sweep as sweep
from .entropy import attention_entropy as attention_entropy
from .entropy import logit_moments as logit_moments
from .models.catalogue import catalogue as catalogue
from .models.catalogue import load as load
from .models.layers import training_tokens as training_tokens
from .plots import figures as figures
from .plots import tables as tables
from .probes import EntropyProbe as EntropyProbe
from .probes import LogitProbe as LogitProbe
from .sampling import calibrate as calibrate
from .sampling import entropy_by_size as entropy_by_size
from .sampling import generate as generate
from .sampling import native_size as native_size
from .scaling import apply_scale as apply_scale
from .scaling import remove_scale as remove_scale
from .scaling import rule as rule
from .scaling import scale_report as scale_report
from .scaling import scaled as scaled
from .sizes import Size as Size

__version__: str
