# pyright: reportAttributeAccessIssue=error
from . import architectures as architectures
from . import catalogue as catalogue
from . import checksums as checksums
from . import hub as hub
from . import kernels as kernels
from . import layers as layers
from . import networks as networks
from . import padding as padding
from . import recording as recording
from . import runs as runs
from . import terrain as terrain
from . import trace as trace
from . import unconditional as unconditional
from .catalogue import recognise as recognise
from .catalogue import sampling_defaults as sampling_defaults
