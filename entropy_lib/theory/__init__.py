"""What entropy should be: laws of softmax rows, exact and approximate, and simulation to check them.

`laws` has the formulas, `exact` the one that holds for any number of tokens, `simulation` the tables of notebook 01. Knows numbers,
arrays and tensors; must not know a model, a rule's name or a picture. What cannot be used is refused by InvalidInputError.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
