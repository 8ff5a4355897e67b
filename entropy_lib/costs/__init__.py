"""What one configuration costs: seconds, memory, operations.

Knows how this library generates; must not know a sweep or a notebook.

    time_and_memory  seconds, memory and the share of attention, of one configuration or many, each in a fresh process
    operations       floating-point operations, counted on a network without weights
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
