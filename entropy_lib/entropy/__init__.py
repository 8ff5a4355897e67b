"""What entropy is and what it should be: measured exactly from query and key without the N x N map, and the
laws of softmax rows.

    attention    entropy of rows and moments of their logits: the two functions to read first; `fused` makes them cheap
    logit_shape  how far logits are from Gaussian
    maps         what a layer looks at
    laws         formulas; `exact` is the one that holds for any number of tokens
    simulation   the tables of notebook 01

Knows numbers, arrays and tensors; must not know whose attention it is, a rule's name or an image, nor that
diffusers exists. What cannot be used is refused by InvalidInputError.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
