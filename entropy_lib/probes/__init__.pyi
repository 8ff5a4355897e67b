# pyright: reportAttributeAccessIssue=error
from . import attention_probe as attention_probe
from . import denoiser_call as denoiser_call
from . import entropy_probe as entropy_probe
from . import importance as importance
from . import logit_probe as logit_probe
from . import map_probe as map_probe
from . import mass_probe as mass_probe
from . import watcher as watcher
from .attention_probe import AttentionProbe as AttentionProbe
from .entropy_probe import EntropyProbe as EntropyProbe
from .entropy_probe import ResponseProbe as ResponseProbe
from .logit_probe import LogitProbe as LogitProbe
from .map_probe import MapProbe as MapProbe
from .mass_probe import MassProbe as MassProbe
from .watcher import AttentionWatcher as AttentionWatcher
