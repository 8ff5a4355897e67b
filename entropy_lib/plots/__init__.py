"""Figures and tables: a DataFrame in, axes or a formatted table out.

Knows tables and the laws of `entropy`; must not import a model, nor anything that does.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
