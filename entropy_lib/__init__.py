"""What happens to the attention of a diffusion model at a size it was not trained for, and what rescaling it repairs.

The public names are below. They are imported on first use, so that `import entropy_lib` itself loads nothing heavy.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOME = {
    "attention_entropy": "attention.entropy",
    "logit_moments": "attention.entropy",
    "rule": "scaling.rules",
    "apply_scale": "scaling.patch",
    "remove_scale": "scaling.patch",
    "scaled": "scaling.patch",
    "scale_report": "scaling.patch",
    "training_tokens": "models.layers",
    "EntropyProbe": "probes.entropy_probe",
    "catalogue": "models.catalogue",
    "load": "models.catalogue",
    "generate": "experiments.generation",
}
_MODULES = {
    "theory": "theory",
    "attention": "attention",
    "scaling": "scaling",
    "probes": "probes",
    "models": "models",
    "experiments": "experiments",
    "statistics": "statistics",
    "metrics": "metrics",
    "sweep": "sweep",
    "display": "display",
    "running": "running",
    "figures": "display.figures",
    "tables": "display.tables",
    "fits": "statistics.fits",
    "profiles": "running.profiles",
    "sampling": "experiments.generation",
    "sizes": "sizes",
}

__all__ = ["__version__", *_HOME, *_MODULES]

if TYPE_CHECKING:
    from entropy_lib import attention as attention
    from entropy_lib import display as display
    from entropy_lib import experiments as experiments
    from entropy_lib import metrics as metrics
    from entropy_lib import models as models
    from entropy_lib import probes as probes
    from entropy_lib import running as running
    from entropy_lib import scaling as scaling
    from entropy_lib import sizes as sizes
    from entropy_lib import statistics as statistics
    from entropy_lib import sweep as sweep
    from entropy_lib import theory as theory
    from entropy_lib.attention.entropy import attention_entropy as attention_entropy
    from entropy_lib.attention.entropy import logit_moments as logit_moments
    from entropy_lib.display import figures as figures
    from entropy_lib.display import tables as tables
    from entropy_lib.experiments.generation import generate as generate
    from entropy_lib.models.catalogue import catalogue as catalogue
    from entropy_lib.models.catalogue import load as load
    from entropy_lib.models.layers import training_tokens as training_tokens
    from entropy_lib.probes.entropy_probe import EntropyProbe as EntropyProbe
    from entropy_lib.running import profiles as profiles
    from entropy_lib.scaling.patch import apply_scale as apply_scale
    from entropy_lib.scaling.patch import remove_scale as remove_scale
    from entropy_lib.scaling.patch import scale_report as scale_report
    from entropy_lib.scaling.patch import scaled as scaled
    from entropy_lib.scaling.rules import rule as rule
    from entropy_lib.statistics import fits as fits


def __getattr__(name: str):
    if name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
