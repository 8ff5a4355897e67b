"""What one configuration costs: seconds, memory, operations; and how they grow with the number of tokens.

Knows how this library draws; must not know a sweep or a notebook.

    configuration  what is measured
    measurement    seconds and memory of one or many, each in a fresh process
    process        what runs there
    instruments    peak memory and the time of attention, on CPU and CUDA
    operations     floating-point operations, counted on a network without weights
    growth         the exponent of a cost in N, and where attention takes over

Example:
    >>> from entropy_lib.costs import Configuration
    >>> Configuration("mini", 64, 96, "paper").label
    'mini, paper, 64x96, picture'
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
