"""What happens to the attention of a diffusion model at a size it was not trained for, and what rescaling it repairs.

The public names are below. They are imported on first use, so that `import entropy_lib` itself loads nothing heavy.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOME = {
    "attention_entropy": "attention",
    "logit_moments": "attention",
    "rule": "rules",
    "apply_scale": "patch",
    "remove_scale": "patch",
    "scaled": "patch",
    "scale_report": "patch",
    "training_tokens": "layers",
    "EntropyProbe": "probe",
    "catalogue": "models",
    "load": "models",
    "generate": "sampling",
}
_MODULES = (
    "theory",
    "laws",
    "gaussianity",
    "figures",
    "tables",
    "fits",
    "profiles",
    "sampling",
    "sizes",
    "models",
    "architectures",
    "metrics",
    "references",
    "sweep",
)

__all__ = ["__version__", *_HOME, *_MODULES]

if TYPE_CHECKING:
    from entropy_lib import architectures as architectures
    from entropy_lib import figures as figures
    from entropy_lib import fits as fits
    from entropy_lib import gaussianity as gaussianity
    from entropy_lib import laws as laws
    from entropy_lib import metrics as metrics
    from entropy_lib import models as models
    from entropy_lib import profiles as profiles
    from entropy_lib import references as references
    from entropy_lib import sampling as sampling
    from entropy_lib import sizes as sizes
    from entropy_lib import sweep as sweep
    from entropy_lib import tables as tables
    from entropy_lib import theory as theory
    from entropy_lib.attention import attention_entropy as attention_entropy
    from entropy_lib.attention import logit_moments as logit_moments
    from entropy_lib.layers import training_tokens as training_tokens
    from entropy_lib.models import catalogue as catalogue
    from entropy_lib.models import load as load
    from entropy_lib.patch import apply_scale as apply_scale
    from entropy_lib.patch import remove_scale as remove_scale
    from entropy_lib.patch import scale_report as scale_report
    from entropy_lib.patch import scaled as scaled
    from entropy_lib.probe import EntropyProbe as EntropyProbe
    from entropy_lib.rules import rule as rule
    from entropy_lib.sampling import generate as generate


def __getattr__(name: str):
    if name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
