from . import entropy_probe as entropy_probe
from . import logit_probe as logit_probe
from . import watcher as watcher
from .entropy_probe import EntropyProbe as EntropyProbe
from .logit_probe import LogitProbe as LogitProbe
from .watcher import AttentionWatcher as AttentionWatcher
