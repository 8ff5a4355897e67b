"""The entropy hooks and the Gaussian check: they measure all self-attention while a model runs.

Knows networks and tensors; must not know the patch, so that each checks the other.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
