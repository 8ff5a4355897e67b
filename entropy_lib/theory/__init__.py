"""What entropy should be: laws of softmax rows, exact and approximate, and simulation to check them.

Knows numbers, arrays and tensors; must not know a model, a rule's name or a picture.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
