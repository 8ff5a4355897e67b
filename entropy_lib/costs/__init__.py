"""What one configuration costs: seconds, memory and the share of attention, each measured in a fresh process.

Knows how this library generates; must not know a sweep or a notebook.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
