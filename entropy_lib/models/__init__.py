"""Which models there are and what they look like: catalogue, exact architectures, networks, layers, weights.

Knows diffusers; must not know what is done with a model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
