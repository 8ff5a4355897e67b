"""Running notebooks and sweeps: parameters, profiles, runner, site, doctor, command line.

Knows every other subpackage; must not be known by any of them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
