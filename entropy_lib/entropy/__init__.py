"""What entropy is and what it should be: exact from query and key without the N x N map, and the laws.

    attention    entropy of rows and moments of their logits; read it first; `fused` makes it cheap
    logit_shape  how far logits are from Gaussian
    laws         formulas; `exact_entropy` is the one that holds for any number of tokens
    simulation   the tables of notebook 01

Knows numbers, arrays and tensors; must not know whose attention it is, a rule's name or an image, nor that
diffusers exists. What cannot be used is refused by InvalidInputError.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
