"""Images whose contents are known: scenes made of sprites, and the detector of things in an image.

Knows images, metrics of layouts and statistics; must not know a model that makes images, nor a notebook.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
